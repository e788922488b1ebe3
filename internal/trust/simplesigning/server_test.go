package simplesigning

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

// What the lookaside server fails to answer is "could not check", and never "not signed". A 404
// alone says that there are no more signatures.
func TestThreatLookasideFaults(t *testing.T) {
	elsewhere := httptest.NewTLSServer(http.NotFoundHandler())
	defer elsewhere.Close()
	status := func(code int) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			return true
		}
	}
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request) bool
		reason string
		says   string
	}{
		"401": {status(401), v1alpha1.ReasonUnauthorized, "reads a lookaside server without credentials"},
		"403": {status(403), v1alpha1.ReasonUnauthorized, "reads a lookaside server without credentials"},
		"429": {status(429), v1alpha1.ReasonServerError, "the lookaside server limits the rate"},
		"500": {status(500), v1alpha1.ReasonServerError, "the lookaside server failed with status 500"},
		"204": {status(204), v1alpha1.ReasonUnexpectedAnswer, "status 204"},
		"a web page": {
			func(w http.ResponseWriter, _ *http.Request) bool {
				w.Write([]byte("\n<!DOCTYPE html><title>Sign in</title>"))
				return true
			},
			v1alpha1.ReasonUnexpectedAnswer, "the answer is a web page and no signature",
		},
		"redirect elsewhere": {
			func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
				return true
			},
			v1alpha1.ReasonUnexpectedAnswer, "redirect",
		},
		"hang": {
			func(_ http.ResponseWriter, r *http.Request) bool {
				<-r.Context().Done()
				return true
			},
			v1alpha1.ReasonTimeout, "",
		},
		"cut": {
			func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Content-Length", "1000")
				w.Write([]byte{0x80})
				return true
			},
			v1alpha1.ReasonUnreachable, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, ci := newLookaside(t), newEntity(t, nil)
			root := build(t, l.spec(of(t, "ci", 1, ci)))
			l.put(ok(t, ci))
			held := fetch(t, root)
			l.fault(tt.answer)
			_, err := root.Fetch(t.Context(), about(), nil)
			if f := trust.AsFault(err, ""); err == nil || f.Reason != tt.reason ||
				!strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s with %q", err, tt.reason, tt.says)
			}
			// What was verified before stays, with the fault.
			e, err := root.Fetch(t.Context(), about(), held)
			if err != nil {
				t.Fatal(err)
			}
			if got := provenBy(e, "v1"); !slices.Equal(got, []string{"ci"}) || len(e.Faults()) == 0 {
				t.Errorf("got signed by %v with the faults %v, want by ci with one", got, e.Faults())
			}
		})
	}
}

// A fault of one signature hides none of the others.
func TestThreatFaultOfOneSignature(t *testing.T) {
	l, ci := newLookaside(t), newEntity(t, nil)
	root := build(t, l.spec(of(t, "ci", 1, ci)))
	junk := []byte("junk")
	l.put(junk, junk, junk, junk, junk, ok(t, ci)) // in the second window of requests
	l.fault(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/signature-2") {
			w.WriteHeader(500)
			return true
		}
		return false
	})
	e := fetch(t, root)
	if got := provenBy(e, "v1"); !slices.Equal(got, []string{"ci"}) || len(e.Faults()) != 1 {
		t.Errorf("got signed by %v with the faults %v, want by ci with one", got, e.Faults())
	}
}

// No signature is "not signed". A signature that is removed counts no longer.
func TestThreatRemovedSimpleSignature(t *testing.T) {
	l, ci := newLookaside(t), newEntity(t, nil)
	root := build(t, l.spec(of(t, "ci", 1, ci)))
	if e := fetch(t, root); e != (trust.Unsigned{}) {
		t.Errorf("got %v, want nothing signed", e)
	}
	l.put(ok(t, ci))
	held := fetch(t, root)
	if again, err := root.Fetch(t.Context(), about(), held); err != nil || again != held {
		t.Errorf("got %v and %v where nothing has changed, want what was held", again, err)
	}
	l.put()
	if e, err := root.Fetch(t.Context(), about(), held); err != nil || e != (trust.Unsigned{}) {
		t.Errorf("got %v and %v after the signature was removed, want nothing signed", e, err)
	}
}

// No credentials are ever sent to a lookaside server: not those of a registry on its host, and no
// pull secrets.
func TestThreatNoCredentialsToLookaside(t *testing.T) {
	l, ci := newLookaside(t), newEntity(t, nil)
	host := strings.TrimPrefix(l.URL, "https://")
	tr := l.spec(of(t, "ci", 1, ci))
	tr.Spec.Registries = []v1alpha1.Registry{{
		Host: host, CABundle: v1alpha1.RegistryCABundle(l.ca.PEM),
		CredentialsSecretRef: &v1alpha1.SecretReference{Name: "pull"},
	}}
	secret := func(key string) v1alpha1.KeySource { return v1alpha1.KeySource{Kind: "Secret", Name: "pull", Key: key} }
	l.fault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	built, err := Format{Keychain: noKeychain{}}.Build(tr, trust.Material{
		secret("username"): "reader", secret("password"): "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	root := built.(*Root)
	if _, err := root.Fetch(t.Context(), about(), nil); trust.AsFault(err, "").Reason != v1alpha1.ReasonUnauthorized {
		t.Errorf("got %v, want %s", err, v1alpha1.ReasonUnauthorized)
	}
	if _, ok := root.Tenant(about(), "team"); ok {
		t.Error("got a tenant of a digest, want none: a lookaside server gets no pull secrets")
	}
	if len(l.requests) == 0 {
		t.Fatal("got no request")
	}
	for _, r := range l.requests {
		if got := r.Header.Get("Authorization"); got != "" {
			t.Errorf("%s: got the credentials %q, want none", r.URL, got)
		}
	}
}

// noKeychain has no pull secrets.
type noKeychain struct{ registry.Keychain }

// A lookaside server is up if it answers at all, and its host is known before the first image.
func TestLookasideProbe(t *testing.T) {
	l, ci := newLookaside(t), newEntity(t, nil)
	root := build(t, l.spec(of(t, "ci", 1, ci)))
	host := root.Host(trust.Subject{})
	if host == "" || host != root.Host(about()) || host == root.Host(trust.Subject{Pulled: repository, Tag: "v1"}) {
		t.Errorf("got the host %q, want that of the lookaside server", host)
	}
	if err := root.Probe(t.Context(), host); err != nil {
		t.Errorf("got %v, want the server up", err)
	}
	l.fault(func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(503)
		return true
	})
	if err := root.Probe(t.Context(), host); trust.AsFault(err, "").Reason != v1alpha1.ReasonServerError {
		t.Errorf("got %v, want %s", err, v1alpha1.ReasonServerError)
	}
}

// Records are verified again, and hold only what a key of the trust root has signed. An edit of the
// trust root verifies what is held anew.
func TestThreatRecordedSimpleSignatures(t *testing.T) {
	l, ci, other := newLookaside(t), newEntity(t, nil), newEntity(t, nil)
	tr := l.spec(of(t, "ci", 1, ci))
	root := build(t, tr)
	l.put([]byte("junk"), ok(t, other), ok(t, ci))
	held := fetch(t, root)
	packed, err := root.Pack(map[trust.Subject]trust.Evidence{about(): held})
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // from here on there is no server
	read, err := root.Unpack(about().InRepository(), packed, nil)
	if err != nil {
		t.Fatal(err)
	}
	e, found := read[about()].(*evidence)
	if !found || !slices.Equal(provenBy(e, "v1"), []string{"ci"}) || len(e.judged) != 1 {
		t.Errorf("got %+v from the record, want the one signature of ci", read)
	}
	tr.Spec.RevokedKeys = []v1alpha1.KeyID{v1alpha1.KeyID(fingerprint(ci.PrimaryKey))}
	revoking := build(t, tr)
	if read, err = revoking.Unpack(about().InRepository(), packed, nil); err != nil ||
		provenBy(read[about()], "v1") != nil {
		t.Errorf("got %v and %v from the record after the key was revoked, want signed by none", read, err)
	}
	if e, err := revoking.Recheck(about(), held); err != nil || provenBy(e, "v1") != nil {
		t.Errorf("got %v and %v after the key was revoked, want signed by none", e, err)
	}
	elsewhere := about()
	elsewhere.Repository, elsewhere.Pulled = "registry.example.com/other", "registry.example.com/other"
	if read, err = root.Unpack(elsewhere.InRepository(), packed, nil); err != nil ||
		provenBy(read[elsewhere], "v1") != nil {
		t.Errorf("got %v and %v from the record of another repository, want signed by none", read, err)
	}
	if packed, err = root.Pack(map[trust.Subject]trust.Evidence{about(): trust.Unsigned{}}); packed != nil ||
		err != nil {
		t.Errorf("got %q and %v of nothing signed, want no record", packed, err)
	}
}
