package notary

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Results that a cell of the matrix can expect, besides the reason of a fault.
const (
	signed    = "signed by ci and qa"
	notSigned = "signed by ci only"
)

// mutation damages the file of one role. It has the expected results for top-level roles and for
// the delegation, in a first fetch and in a refresh. Exceptions override both, by role and state.
type mutation struct {
	apply      func(v *virtual, role string)
	top        string
	delegation string
	exceptions map[string]string
}

func mutations() map[string]mutation {
	invalid := v1alpha1.ReasonMetadataInvalid
	return map[string]mutation{
		"not JSON": {top: invalid, delegation: notSigned, apply: func(v *virtual, role string) {
			v.role(role).rewrite = func([]byte) []byte { return []byte("<html>not JSON</html>") }
		}},
		"wrong _type": {top: invalid, delegation: notSigned, apply: func(v *virtual, role string) {
			v.role(role).mutate = func(signed m) { signed["_type"] = "Mirrors" }
		}},
		"broken signature": {top: invalid, delegation: notSigned, apply: func(v *virtual, role string) {
			v.role(role).rewrite = breakSignature
		}},
		"signed by an unlisted key": {top: invalid, delegation: notSigned, apply: func(v *virtual, role string) {
			v.role(role).signers = []*testKey{newRootKey(v.t)}
		}},
		"threshold not met": {top: invalid, delegation: notSigned, apply: func(v *virtual, role string) {
			r := v.role(role)
			r.signers, r.keys, r.threshold = r.keys, append(r.keys, newRootKey(v.t)), 2
			if role == "root" {
				return // version already raised
			}
			v.bump("root", "targets") // the files that list it
		}},
		"expired": {top: v1alpha1.ReasonMetadataExpired, delegation: notSigned, apply: func(v *virtual, role string) {
			v.role(role).expires = testNow().Add(-time.Second)
		}},
		"lower version": {top: v1alpha1.ReasonRollback, delegation: v1alpha1.ReasonRollback,
			apply: func(v *virtual, role string) { v.role(role).version = 4 },
			exceptions: map[string]string{ // no seen version to compare with
				"root first fetch": signed, "timestamp first fetch": signed, "snapshot first fetch": signed,
				"targets first fetch":    signed,
				"targets/qa first fetch": signed,
			}},
		"wrong hash": {top: invalid, delegation: invalid,
			apply: func(v *virtual, role string) { v.serve[role] = v.serveResigned(role) },
			exceptions: map[string]string{ // nothing lists its hash
				"timestamp first fetch": signed, "timestamp refresh": signed,
			}},
		"too short": {top: invalid, delegation: invalid,
			apply: func(v *virtual, role string) {
				v.serve[role] = func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write(bytes.TrimSpace(v.current[role]))
				}
			},
			exceptions: map[string]string{"timestamp first fetch": signed, "timestamp refresh": signed}},
		"too long": {top: v1alpha1.ReasonTooLarge, delegation: v1alpha1.ReasonTooLarge,
			apply: func(v *virtual, role string) {
				v.serve[role] = func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write(append(bytes.Clone(v.current[role]), '\n'))
				}
			},
			exceptions: map[string]string{ // only the snapshot lists the length of root.json
				"root first fetch": invalid, "root refresh": invalid, "timestamp first fetch": signed,
				"timestamp refresh": signed,
			}},
		"404": {top: v1alpha1.ReasonMetadataMissing, delegation: v1alpha1.ReasonMetadataMissing,
			apply: func(v *virtual, role string) { v.serve[role] = notFound }},
		"404 in HTML": {top: v1alpha1.ReasonUnexpectedAnswer, delegation: v1alpha1.ReasonUnexpectedAnswer,
			apply: func(v *virtual, role string) { v.serve[role] = http.NotFound }},
		"500": {top: v1alpha1.ReasonServerError, delegation: v1alpha1.ReasonServerError,
			apply: func(v *virtual, role string) {
				v.serve[role] = func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(http.StatusInternalServerError)
				}
			}},
		"endless body": {top: v1alpha1.ReasonTooLarge, delegation: v1alpha1.ReasonTooLarge,
			apply: func(v *virtual, role string) { v.serve[role] = endless }},
		"slow body": {top: v1alpha1.ReasonTimeout, delegation: v1alpha1.ReasonTimeout,
			apply: func(v *virtual, role string) { v.serve[role] = slow }},
	}
}

// serveResigned serves another valid file of the same length: the same content with another
// signature.
func (v *virtual) serveResigned(role string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var doc struct {
			Signed json.RawMessage `json:"signed"`
		}
		if err := json.Unmarshal(v.current[role], &doc); err != nil {
			v.t.Error(err)
		}
		signed := m{}
		if err := json.Unmarshal(doc.Signed, &signed); err != nil {
			v.t.Error(err)
		}
		_, _ = w.Write(sealed(v.t, signed, v.role(role).keys...))
	}
}

// breakSignature flips a bit in the middle of the first signature.
func breakSignature(raw []byte) []byte {
	out := bytes.Clone(raw)
	at := bytes.Index(out, []byte(`"sig":"`)) + 40
	if out[at] == 'A' {
		out[at] = 'B'
	} else {
		out[at] = 'A'
	}
	return out
}

func endless(w http.ResponseWriter, r *http.Request) {
	chunk := bytes.Repeat([]byte(" "), 32<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func slow(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(isSlow, "yes")
	_, _ = io.WriteString(w, `{"signed":`)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// isSlow is the header of a response that never ends.
const isSlow = "X-Slow"

// impatient times out on a response that never ends, once it has begun. Other requests may take as
// long as they need on a busy machine.
type impatient struct{}

// RoundTrip implements http.RoundTripper.
func (impatient) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil && resp.Header.Get(isSlow) != "" {
		resp.Body.Close()
		resp.Body = io.NopCloser(iotest.ErrReader(context.DeadlineExceeded))
	}
	return resp, err
}

// TestMutationMatrix damages each file in each way, in a first fetch and in a refresh. Each cell
// expects a verdict or a fault with its reason. The earlier evidence answers as before, and is
// replaced once the server is repaired.
func TestMutationMatrix(t *testing.T) {
	for name, mut := range mutations() {
		for _, role := range []string{"root", "timestamp", "snapshot", "targets", "targets/qa"} {
			for _, state := range []string{"first fetch", "refresh"} {
				want := mut.top
				if role == "targets/qa" {
					want = mut.delegation
				}
				if other, ok := mut.exceptions[role+" "+state]; ok {
					want = other
				}
				t.Run(name+"/"+role+"/"+state, func(t *testing.T) {
					t.Parallel()
					checkMutation(t, mut, role, state == "refresh", want)
				})
			}
		}
	}
}

func checkMutation(t *testing.T, mut mutation, role string, warm bool, want string) {
	v := newVirtual(t)
	r, err := New(v.config(), httpGetter{url: v.server.URL, client: &http.Client{Transport: impatient{}}})
	if err != nil {
		t.Fatal(err)
	}
	var previous trust.Evidence
	if warm {
		previous = mustFetch(t, r, nil)
	}
	clean := *v.role(role)
	for _, r := range v.roles {
		r.version = 7
	}
	if role == "root" || !warm {
		v.roles["root"].version = 6 // the next version: roots are verified one by one
	} else {
		v.roles["root"].version = 5
	}
	mut.apply(v, role)
	v.publish()

	ev, err := r.Fetch(t.Context(), of(testGUN), previous)
	switch want {
	case signed, notSigned:
		if err != nil {
			t.Fatalf("got fault %v, want %q", err, want)
		}
		wantRoles := []string{"ci one", "qa one"}
		if want == notSigned {
			wantRoles = wantRoles[:1]
		}
		if diff := cmp.Diff(wantRoles, signedBy(ev, "v1")); diff != "" {
			t.Errorf("signed (-want +got):\n%s", diff)
		}
	default:
		wantFault(t, err, want, testGUN, role)
		if ev != nil {
			t.Errorf("got evidence %v beside a fault", ev)
		}
	}
	if !warm {
		return
	}
	if diff := cmp.Diff([]string{"ci one", "qa one"}, signedBy(previous, "v1")); diff != "" {
		t.Errorf("the earlier evidence has changed (-want +got):\n%s", diff)
	}
	v.repair(role, clean)
	if got := mustFetch(t, r, previous); got == previous {
		t.Error("got no new evidence of the repaired repository")
	} else if diff := cmp.Diff([]string{"ci one", "qa one"}, signedBy(got, "v1")); diff != "" {
		t.Errorf("signed after the repair (-want +got):\n%s", diff)
	}
}

// repair undoes a mutation and publishes the next versions.
func (v *virtual) repair(role string, clean vrole) {
	v.mu.Lock()
	clear(v.serve)
	delete(v.files, "6.root.json") // this root was never accepted
	v.mu.Unlock()
	*v.roles[role] = clean
	for _, r := range v.roles {
		r.version = 9
	}
	v.roles["root"].version = 6
	v.publish()
}
