package pullsecrets

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

const (
	// maxContent and maxValues bound the content of a pull secret, in bytes and in JSON values.
	maxContent = 128 << 10
	maxValues  = 4096

	dockerHub = "index.docker.io"
)

// entry is the entry of a pull secret: the credentials for one registry, or a part of it.
type entry struct {
	// host may have the wildcards of path.Match in each of its labels. prefix is the first part of
	// the path of a repository, with a leading slash, or empty.
	host, prefix       string
	username, password string
	// unusable says why the entry cannot be used; empty: it can.
	unusable string
}

// dockerEntry is an entry as "docker login" writes it.
type dockerEntry struct {
	Username string `json:"username"`
	Password string `json:"password"`
	Auth     string `json:"auth"`
}

// readSecret returns the entries of a pull secret. It reads the types that the kubelet reads. The
// error contains nothing of the content.
func readSecret(s *corev1.Secret) ([]entry, error) {
	var content []byte
	entries := map[string]json.RawMessage{}
	var target any = &entries
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		content, target = s.Data[corev1.DockerConfigJsonKey], &struct {
			Auths *map[string]json.RawMessage `json:"auths"`
		}{&entries}
	case corev1.SecretTypeDockercfg:
		content = s.Data[corev1.DockerConfigKey]
	default:
		return nil, fmt.Errorf("has the type %q, and not %s or %s", s.Type, corev1.SecretTypeDockerConfigJson,
			corev1.SecretTypeDockercfg)
	}
	if len(content) > maxContent {
		return nil, fmt.Errorf("has more than %d bytes", maxContent)
	}
	if values, ok := jsonscan.Count(content, maxValues); !ok || values == maxValues {
		return nil, fmt.Errorf("is no JSON, or has more than %d values", maxValues)
	}
	if json.Unmarshal(content, target) != nil { // the error may contain a password
		return nil, errors.New("does not list registries as \"docker login\" writes them")
	}
	var all []entry
	for name, raw := range entries {
		if e, ok := readEntry(name, raw); ok {
			all = append(all, e)
		}
	}
	// The kubelet tries longer names first.
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.host+b.prefix, a.host+a.prefix), cmp.Compare(a.username, b.username))
	})
	return all, nil
}

// readEntry reads one entry. ok is false if its name is no registry.
func readEntry(name string, raw json.RawMessage) (e entry, ok bool) {
	if !strings.HasPrefix(name, "https://") && !strings.HasPrefix(name, "http://") {
		name = "https://" + name
	}
	u, err := url.Parse(name)
	if err != nil || u.Host == "" {
		return entry{}, false
	}
	e = entry{host: u.Host, prefix: u.Path}
	if strings.HasPrefix(e.prefix, "/v1/") || strings.HasPrefix(e.prefix, "/v2/") {
		e.prefix = e.prefix[len("/v1"):]
	}
	if e.prefix == "/" {
		e.prefix = ""
	}
	e.username, e.password, e.unusable = readCredentials(raw)
	return e, true
}

// readCredentials reads the user name and the password of an entry. As in the kubelet, "auth" takes
// precedence, and tokens are not read.
func readCredentials(raw json.RawMessage) (username, password, unusable string) {
	var d dockerEntry
	if json.Unmarshal(raw, &d) != nil {
		return "", "", "is no JSON object with credentials"
	}
	if d.Auth != "" {
		decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(d.Auth), "="))
		name, secret, ok := strings.Cut(string(decoded), ":")
		if err != nil || !ok {
			return "", "", `has an "auth" that is not the base64 of user:password`
		}
		d.Username, d.Password = name, secret
	}
	if d.Username == "" && d.Password == "" {
		return "", "", "has no user name and password; kubelets use no other kind of credentials"
	}
	return d.Username, d.Password, ""
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
