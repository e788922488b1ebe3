package notary

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// The Notary roles with a meaning of their own.
const (
	rootRole      = "root"
	timestampRole = "timestamp"
	snapshotRole  = "snapshot"
	targetsRole   = "targets"
	// releasesRole is signed by any one of all signers, so it never speaks for a role.
	releasesRole = "targets/releases"
)

const (
	maxRepositoryName = 512
	maxTag            = 128
	maxDelegationName = 255
	// maxDepth is how many delegations may lie one below the other.
	maxDepth = 8
	// maxRoles is how many delegations of one repository are read.
	maxRoles = 64
)

var (
	// tagName is what a registry takes as a tag.
	tagName        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	delegationName = regexp.MustCompile(`^targets(/[-a-z0-9_]+)+$`)
	// repositoryName is a repository by its name: a host with perhaps a port, and path segments. No
	// segment can be "..", nor hold anything that a URL would need escaped. Docker's clients keep
	// the capitals of a host.
	repositoryName = regexp.MustCompile(
		`^([A-Za-z0-9]+([.-]+[A-Za-z0-9]+)*|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+$`)
)

// checkRepository holds a repository against the name rule before it becomes part of a URL.
func checkRepository(repository string) error {
	if len(repository) > maxRepositoryName || !repositoryName.MatchString(repository) {
		return trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"repository %.80q is not a registry host and a path in lower case, so no metadata is asked for", repository)
	}
	return nil
}

// checkDelegation holds the name of a delegation against the rule of the format, and our bound on
// depth.
func checkDelegation(name string) error {
	if len(name) > maxDelegationName || !delegationName.MatchString(name) || path.Clean(name) != name {
		return fmt.Errorf(
			"%.80q is not the name of a delegation: targets/<name>, in lower-case letters, digits, '-' and '_'", name)
	}
	if depth := strings.Count(name, "/"); depth > maxDepth {
		return fmt.Errorf("delegation %.80q is %d levels deep, more than the %d that are followed", name, depth,
			maxDepth)
	}
	return nil
}

// filePath is where the server has a file. Both parts have passed the name rule.
func filePath(repository, name string) string {
	return "/v2/" + repository + "/_trust/tuf/" + name
}
