package notary

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Notary roles with a fixed meaning.
const (
	rootRole      = "root"
	timestampRole = "timestamp"
	snapshotRole  = "snapshot"
	targetsRole   = "targets"
	// releasesRole is a delegation that any signer can sign, so it never counts for a role.
	releasesRole = "targets/releases"
)

const (
	maxRepositoryName = 512
	maxTag            = 128
	maxDelegationName = 255
	// maxDepth bounds the depth of nested delegations.
	maxDepth = 8
	// maxRoles bounds the delegations of one repository that are read.
	maxRoles = 64
)

var (
	// tagName matches a tag of the distribution protocol.
	tagName        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	delegationName = regexp.MustCompile(`^targets(/[-a-z0-9_]+)+$`)
	// repositoryName matches a host with an optional port, and path segments. No segment can be
	// ".." or contain a character that a URL must escape. The host may have capitals, which
	// Docker's clients keep.
	repositoryName = regexp.MustCompile(
		`^([A-Za-z0-9]+([.-]+[A-Za-z0-9]+)*|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+$`)
)

// checkRepository checks a repository against the naming rule, before it becomes part of a URL.
func checkRepository(repository string) error {
	if len(repository) > maxRepositoryName || !repositoryName.MatchString(repository) {
		return trust.NewFault(v1alpha1.ReasonMetadataInvalid,
			"repository %.80q is not a registry host and a path in lower case, so no metadata is requested", repository)
	}
	return nil
}

// checkDelegation checks the name of a delegation against the rule of the format and maxDepth.
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

// filePath returns the path of a file on the server. Both names must have passed the naming rule.
func filePath(repository, name string) string {
	return "/v2/" + repository + "/_trust/tuf/" + name
}
