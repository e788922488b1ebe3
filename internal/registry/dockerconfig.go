package registry

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
)

// maxDockerConfig bounds a file with the credentials of registries, in bytes. Secrets have at most
// 1 MiB.
const maxDockerConfig = 1 << 20

// dockerEntry is the entry of a registry in the file in which Docker's clients keep credentials.
type dockerEntry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

// dockerCredentials returns the credentials for a host in the content of a
// kubernetes.io/dockerconfigjson Secret. found is false if there is no entry for the host. An error
// contains nothing of the content.
func dockerCredentials(content, host string) (username, password string, found bool, err error) {
	if len(content) > maxDockerConfig {
		return "", "", false, errors.New("is longer than 1 MiB")
	}
	var config struct {
		Auths map[string]dockerEntry `json:"auths"`
	}
	if json.Unmarshal([]byte(content), &config) != nil { // the error may contain a password
		return "", "", false, errors.New(`is no JSON with an object "auths", as "docker login" writes it`)
	}
	entry, found := config.Auths[host]
	for _, name := range slices.Sorted(maps.Keys(config.Auths)) { // two spellings of a host: the same one each time
		if !found && dockerHost(name) == host {
			entry, found = config.Auths[name], true
		}
	}
	if !found {
		return "", "", false, nil
	}
	if entry.Username == "" && entry.Auth != "" {
		decoded, err := base64.StdEncoding.DecodeString(entry.Auth)
		name, secret, ok := strings.Cut(string(decoded), ":")
		if err != nil || !ok {
			return "", "", true, errors.New(`has an entry whose "auth" is not the base64 of user:password`)
		}
		entry.Username, entry.Password = name, secret
	}
	if entry.IdentityToken != "" || entry.Username == "" || entry.Password == "" {
		return "", "", true, errors.New("has an entry without user name and password; other kinds of credentials " +
			"are not supported")
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
