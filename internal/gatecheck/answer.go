package gatecheck

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// kind says who answered a request, and how.
type kind int

const (
	unanswered  kind = iota // no API server did
	admitted                // the Pod would be created
	decision                // the gate decided, and denied
	broken                  // the gate answered, and could decide nothing
	unreachable             // the API server could not ask the gate
	elsewhere               // another webhook
	refused                 // the API server itself
)

// answer is what came of a request. text is for people; of a decision it is the gate's own.
type answer struct {
	kind kind
	text string
}

// decides reports whether the gate has decided on an image, and denied it. Each line of its own
// names the image, and the policy or the rule.
func (a answer) decides(image string) bool {
	return a.kind == decision && strings.HasPrefix(a.text, fmt.Sprintf("image %q: ", image)) &&
		strings.Contains(a.text, "ImagePolicy")
}

// denies reports whether it denied the image for a policy.
func (a answer) denies(image, policy string) bool {
	return a.decides(image) && strings.Contains(a.text, fmt.Sprintf("ImagePolicy %q", policy))
}

// read tells from the error of a request who refused it. API servers name the webhook that they
// asked, which nobody else can have in front of a message.
func (c *Check) read(err error) answer {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return answer{unanswered, "the API server does not answer: " + err.Error()}
	}
	code, message := status.Status().Code, status.Status().Message
	if own, ok := strings.CutPrefix(message,
		fmt.Sprintf("admission webhook %q denied the request: ", c.Validating)); ok {
		if code == http.StatusForbidden || code == http.StatusServiceUnavailable {
			return answer{decision, own}
		}
		return answer{broken, message}
	}
	m := regexp.MustCompile(`^(?:Internal error occurred: )?(admission|failed calling) webhook "([^"]+)"`).
		FindStringSubmatch(message)
	switch {
	case m == nil:
		return answer{refused, message}
	case m[2] != c.Validating && m[2] != c.Mutating:
		return answer{elsewhere, message}
	case m[1] == "admission":
		return answer{broken, message}
	}
	return answer{unreachable, message}
}
