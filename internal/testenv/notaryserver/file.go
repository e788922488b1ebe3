package notaryserver

import (
	"strconv"
	"strings"
)

// File returns the Match of a fault for the metadata file of a role, such as "snapshot" or
// "targets/qa". It matches the latest file, and files by version and by hash.
func File(role string) func(path string) bool {
	return func(path string) bool {
		_, name, ok := strings.Cut(path, "/_trust/tuf/")
		if !ok {
			return false
		}
		name = strings.TrimSuffix(name, ".json")
		version, rest, dotted := strings.Cut(name, ".")
		if _, err := strconv.Atoi(version); dotted && err == nil {
			name = rest // <version>.<role>
		}
		name, _, _ = strings.Cut(name, ".") // <role>.<hash>
		return name == role
	}
}
