package pullsecrets

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/internal/dockerconfig"
)

const dockerHub = "index.docker.io"

// entry is the entry of a pull secret: the credentials for one registry, or a part of it.
type entry struct {
	// host may have the wildcards of path.Match in each of its labels. prefix is the first part of
	// the path of a repository, with a leading slash, or empty.
	host, prefix       string
	username, password string
	// unusable says why the entry cannot be used; empty: it can.
	unusable string
}

// readSecret returns the entries of a pull secret. It reads the types that the kubelet reads. The
// error contains nothing of the content.
func readSecret(s *corev1.Secret) ([]entry, error) {
	var listed []dockerconfig.Entry
	var err error
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		listed, err = dockerconfig.Read(s.Data[corev1.DockerConfigJsonKey])
	case corev1.SecretTypeDockercfg:
		listed, err = dockerconfig.ReadLegacy(s.Data[corev1.DockerConfigKey])
	default:
		err = fmt.Errorf("has the type %q, and not %s or %s", s.Type, corev1.SecretTypeDockerConfigJson,
			corev1.SecretTypeDockercfg)
	}
	if err != nil {
		return nil, err
	}
	var all []entry
	for _, l := range listed {
		if e, ok := entryOf(l); ok {
			all = append(all, e)
		}
	}
	// The kubelet tries longer names first.
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.host+b.prefix, a.host+a.prefix), cmp.Compare(a.username, b.username))
	})
	return all, nil
}

// entryOf returns an entry with the host and the path of its name. ok is false if its name is no
// registry. As in the kubelet, a token counts for nothing.
func entryOf(l dockerconfig.Entry) (e entry, ok bool) {
	name := l.Name
	if !strings.HasPrefix(name, "https://") && !strings.HasPrefix(name, "http://") {
		name = "https://" + name
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" {
		return entry{}, false
	}
	e = entry{host: u.Host, prefix: u.Path, username: l.Username, password: l.Password, unusable: l.Unusable}
	if strings.HasPrefix(e.prefix, "/v1/") || strings.HasPrefix(e.prefix, "/v2/") {
		e.prefix = e.prefix[len("/v1"):]
	}
	if e.prefix == "/" {
		e.prefix = ""
	}
	if e.unusable == "" && e.username == "" && e.password == "" {
		e.unusable = "has no user name and password; kubelets use no other kind of credentials"
	}
	return e, true
}

// matching returns the entries for a repository, named as imageref.Ref.Name does: those that the
// kubelet tries.
func matching(entries []entry, repository string) []entry {
	host, name, _ := strings.Cut(repository, "/")
	var found []entry
	for _, e := range entries {
		if matchesHost(e.host, host) && strings.HasPrefix("/"+name, e.prefix) {
			found = append(found, e)
		}
	}
	if len(found) > 0 || host != "docker.io" {
		return found
	}
	for _, e := range entries {
		if e.host == dockerHub && e.prefix == "" {
			found = append(found, e)
		}
	}
	return found
}

// matchesHost reports whether the host of an entry matches the host of a repository: label by
// label, with the same port.
func matchesHost(pattern, host string) bool {
	pattern, patternPort := splitPort(pattern)
	host, port := splitPort(host)
	patterns, labels := strings.Split(pattern, "."), strings.Split(host, ".")
	if patternPort != port || len(patterns) != len(labels) {
		return false
	}
	for i := range labels {
		if ok, err := path.Match(patterns[i], labels[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitPort(hostPort string) (host, port string) {
	host, port, err := net.SplitHostPort(hostPort)
	if err != nil {
		return hostPort, ""
	}
	return host, port
}
