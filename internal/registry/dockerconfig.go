package registry

import (
	"fmt"
	"strings"

	"github.com/countersign-dev/countersign/internal/dockerconfig"
)

// dockerCredentials returns the credentials for a host in the content of a
// kubernetes.io/dockerconfigjson Secret. found is false if there is no entry for the host. An error
// contains nothing of the content.
func dockerCredentials(content, host string) (username, password string, found bool, err error) {
	entries, err := dockerconfig.Read([]byte(content))
	if err != nil {
		return "", "", false, err
	}
	var entry dockerconfig.Entry
	for _, e := range entries { // two spellings of a host: the same one each time
		if e.Name == host || !found && dockerHost(e.Name) == host {
			entry, found = e, true
		}
	}
	switch {
	case !found:
		return "", "", false, nil
	case entry.Unusable != "":
		return "", "", true, fmt.Errorf("has an entry for %q, which %s", host, entry.Unusable)
	case entry.IdentityToken || entry.Username == "" || entry.Password == "":
		return "", "", true, fmt.Errorf("has an entry for %q without user name and password; other kinds of "+
			"credentials are not supported", host)
	}
	return entry.Username, entry.Password, true, nil
}

// dockerHost returns the host of an entry's name, which may be a URL. An entry for one repository
// of a registry is not one for its host.
func dockerHost(name string) string {
	if name == "https://index.docker.io/v1/" || name == "index.docker.io" {
		return dockerIO
	}
	name = strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
	for _, suffix := range []string{"/", "/v1", "/v2"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}
