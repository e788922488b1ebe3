package gatecheck

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// kind says which component answered a request, and how.
type kind int

const (
	unanswered  kind = iota // no API server answered
	admitted                // the API server would create the Pod
	decision                // the gate denied the Pod
	broken                  // the gate answered without a decision
	unreachable             // the API server could not call the gate
	elsewhere               // another webhook answered
	refused                 // the API server itself refused the Pod
)

// answer is the answer to a request. text is for the user. For a decision it is the gate's own
// text.
type answer struct {
	kind kind
	text string
}

// deniesImage reports whether the gate denied an image. Each line of a denial names the image, and
// the policy or the rule.
func (a answer) deniesImage(image string) bool {
	return a.kind == decision && strings.HasPrefix(a.text, fmt.Sprintf("image %q: ", image)) &&
		strings.Contains(a.text, "ImagePolicy")
}

// deniesFor reports whether the gate denied an image because of a policy.
func (a answer) deniesFor(image, policy string) bool {
	return a.deniesImage(image) && strings.Contains(a.text, fmt.Sprintf("ImagePolicy %q", policy))
}

// classify turns the error of a request into an answer. An API server puts the name of the webhook
// that it called in front of the message, and no other component can do that.
func (c *Check) classify(err error) answer {
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
