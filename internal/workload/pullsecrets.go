package workload

import (
	"encoding/json"

	"github.com/countersign-dev/countersign/internal/jsonscan"
)

const (
	// maxPullSecrets bounds the pull secrets that are read of one object, and maxObjectName the
	// length of a name with its quotes and escapes, in bytes.
	maxPullSecrets = 64
	maxObjectName  = 512
)

// PullSecrets is what a PodSpec says about its image pull secrets.
type PullSecrets struct {
	// Names are the names of the Secrets.
	Names []string
	// ServiceAccount is the name of the service account, empty if there is none.
	ServiceAccount string
}

// PullSecrets returns what the PodSpec of an object says about its image pull secrets. No decision
// depends on it but which credentials are tried, so a part that cannot be read is left out.
func (k Kind) PullSecrets(raw []byte) PullSecrets {
	s := &jsonscan.Scanner{Text: raw}
	s.SkipSpace()
	var p PullSecrets
	deprecated := ""
	member(s, k.podSpec, func() {
		s.Members(func(key []byte) {
			switch {
			case string(key) == `"serviceAccountName"`:
				p.ServiceAccount = name(s)
			case string(key) == `"serviceAccount"`:
				deprecated = name(s)
			case string(key) == `"imagePullSecrets"` && s.At('['):
				s.Elements(func() {
					member(s, []string{"name"}, func() {
						if found := name(s); found != "" && len(p.Names) < maxPullSecrets {
							p.Names = append(p.Names, found)
						}
					})
				})
			default:
				s.Skip()
			}
		})
	})
	if p.ServiceAccount == "" {
		p.ServiceAccount = deprecated
	}
	return p
}

// member skips a value, and calls visit at its member with a path. visit must skip that. A path
// without elements is the value itself, which must be an object or a string.
func member(s *jsonscan.Scanner, path []string, visit func()) {
	switch {
	case len(path) == 0 && (s.At('{') || s.At('"')):
		visit()
	case len(path) > 0 && s.At('{'):
		s.Members(func(key []byte) {
			if string(key) == `"`+path[0]+`"` {
				member(s, path[1:], visit)
				return
			}
			s.Skip()
		})
	default:
		s.Skip()
	}
}

// name skips a value, and returns it if it is a string that can be a name.
func name(s *jsonscan.Scanner) string {
	from := s.Next
	s.Skip()
	var found string
	if s.Invalid || s.Next-from > maxObjectName || json.Unmarshal(s.Text[from:s.Next], &found) != nil {
		return ""
	}
	return found
}
