package gatecheck

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	validating, mutating = "validate.example.com", "mutate.example.com"
	policy               = "p"
)

// script answers requests in order. It ends the check after the last answer.
type script struct {
	t       *testing.T
	answers []error
	end     context.CancelFunc
}

func (s *script) Create(_ context.Context, pod *corev1.Pod, o metav1.CreateOptions) (*corev1.Pod, error) {
	if len(o.DryRun) != 1 || o.DryRun[0] != metav1.DryRunAll {
		s.t.Errorf("got the options %+v, want a dry run", o)
	}
	if len(s.answers) == 0 {
		s.t.Errorf("got one request more, for %s, want none", pod.Spec.Containers[0].Image)
		s.end()
		return pod, nil
	}
	err := s.answers[0]
	if s.answers = s.answers[1:]; len(s.answers) == 0 {
		s.end()
	}
	return pod, err
}

func refusal(code int32, format string, args ...any) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Message: fmt.Sprintf(format, args...)}}
}

// denial returns the denial of a webhook as the API server returns it.
func denial(code int32, webhook, text string) error {
	return refusal(code, "admission webhook %q denied the request: %s", webhook, text)
}

// The check accepts only the gate's own decision, and waits for it.
func TestCheckBelievesTheGateAlone(t *testing.T) {
	const (
		bad, good = `image "` + DeniedImage + `": `, `image "` + AdmittedImage + `": `
		ours      = bad + `ImagePolicy "p": TrustRoot "p" does not exist`
	)
	denied := denial(http.StatusServiceUnavailable, validating, ours)
	unreached := refusal(http.StatusInternalServerError,
		"Internal error occurred: failed calling webhook %q: connection refused", validating)
	forbidden := refusal(http.StatusForbidden, `pods is forbidden: User "u" cannot create resource "pods"`)
	for name, tt := range map[string]struct {
		answers []error
		want    string // of the error; empty: none
	}{
		"denied and admitted":             {[]error{denied, nil}, ""},
		"denied as a verdict":             {[]error{denial(http.StatusForbidden, validating, ours), nil}, ""},
		"waits for rights and the policy": {[]error{forbidden, unreached, nil, denied, unreached, nil}, ""},
		"another rule covers the other": {
			[]error{denied, denial(403, validating, good+`ImagePolicy "every": role "ci" has not signed`)}, "",
		},
		"none may be uncovered": {
			[]error{
				denied, denial(403, validating, good+"no ImagePolicy covers it, and what none covers is denied here"),
			}, "",
		},

		"admitted": {[]error{nil}, "so the gate is not reached"},
		"no answer": {
			[]error{errors.New("connection refused")}, "the API server does not answer: connection refused",
		},
		"rights":      {[]error{forbidden}, "that is not the gate"},
		"not reached": {[]error{unreached}, "cannot reach the gate"},
		"pinning unreached": {
			[]error{refusal(500, "Internal error occurred: failed calling webhook %q: x", mutating)},
			"cannot reach the gate",
		},
		"another webhook": {[]error{denial(403, "w.example.com", ours)}, "except namespace n from that webhook"},
		"another is dead": {
			[]error{refusal(500, "Internal error occurred: failed calling webhook %q: x", "w.example.com")},
			"except namespace n from that webhook",
		},
		"a quoted denial": {[]error{refusal(403, "pods is forbidden: %s", denied)}, "that is not the gate"},
		"pinning denies":  {[]error{denial(403, mutating, ours)}, "cannot decide"},
		"another policy":  {[]error{denial(403, validating, bad+`ImagePolicy "p2": no`)}, "not for ImagePolicy"},
		"another image":   {[]error{denial(403, validating, good+`ImagePolicy "p": no`)}, "not for ImagePolicy"},
		"nothing decided": {[]error{denial(500, validating, ours)}, "cannot decide"},
		"no image named": {
			[]error{denial(503, validating, `the images could not be checked: ImagePolicy "p"`)}, "not for ImagePolicy",
		},

		"the other denied by it": {
			[]error{denied, denial(503, validating, good+`ImagePolicy "p": no`)}, "the admission is missing",
		},
		"the other without a rule": {
			[]error{denied, denial(503, validating, good+"no decision was made")}, "the admission is missing",
		},
		"the other broken": {
			[]error{denied, denial(500, validating, "internal error")}, "cannot decide",
		},
		"the other not reached": {[]error{denied, unreached}, "the admission is missing"},
		"the other by another webhook": {
			[]error{denied, denial(403, "w.example.com", good+`ImagePolicy "x"`)},
			"except namespace n from that webhook",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := &script{t: t, answers: tt.answers, end: cancel}
			if tt.want == "" {
				s.end = func() {}
			}
			var out strings.Builder
			c := &Check{
				Pods: s, Warnings: func() []string { return nil }, Validating: validating, Mutating: mutating,
				Interval: time.Millisecond, Out: &out,
			}
			err := c.Run(ctx, Options{Namespace: "n", Policy: policy, Timeout: time.Minute})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q; the output is\n%s", err, tt.want, &out)
			}
			if n := len(s.answers); n > 0 {
				t.Errorf("got %d requests too few", n)
			}
		})
	}
}

// The error quotes the warnings of the API server: they may say why the gate admitted the Pod.
func TestWarningsAreQuoted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w := &warnings{}
	w.HandleWarningHeader(299, "", "of the request before")
	s := &script{t: t, answers: []error{nil}, end: func() {
		w.HandleWarningHeader(299, "", "admitted by break-glass")
		cancel()
	}}
	c := &Check{
		Pods: s, Warnings: w.drain, Validating: validating, Mutating: mutating, Interval: time.Millisecond,
		Out: &strings.Builder{},
	}
	err := c.Run(ctx, Options{Namespace: "n", Policy: policy, Timeout: time.Minute})
	const want = "warns: admitted by break-glass, so the gate is not reached"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestExemptNamespace(t *testing.T) {
	err := (&Check{}).Run(t.Context(), Options{Namespace: "n", ExemptNamespaces: []string{"m", "n"}})
	if err == nil || !strings.Contains(err.Error(), "namespace n is exempt") {
		t.Errorf("got %v, want that namespace n is exempt", err)
	}
}

func TestParse(t *testing.T) {
	o, err := Parse([]string{"--namespace=n", "--policy=p", "--exempt-namespaces=a,b"})
	if err != nil || o.Namespace != "n" || o.Policy != "p" || len(o.ExemptNamespaces) != 2 || o.Timeout != time.Minute {
		t.Errorf("got %+v and the error %v, want the flags and a timeout of 1m", o, err)
	}
	for args, want := range map[string]string{
		"":                                      "--namespace and --policy must be set",
		"--namespace=n":                         "--namespace and --policy must be set",
		"--namespace=n --policy=p x":            `unexpected argument "x"`,
		"--namespace=n --policy=p --timeout=0s": "--timeout=0s",
		"--namespace=n --policy=p --x":          "unknown flag: --x",
	} {
		if _, err := Parse(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}
