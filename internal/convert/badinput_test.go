package convert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// derivedKey returns the first point of P-256 that a numbered text hashes to.
func derivedKey(t *testing.T) string {
	t.Helper()
	p := elliptic.P256().Params()
	for i := range 256 {
		sum := sha256.Sum256(fmt.Appendf(nil, "Countersign: a key that nobody has %d", i))
		x := new(big.Int).SetBytes(sum[:])
		// y^2 = x^3 - 3x + b
		y2 := new(big.Int).Exp(x, big.NewInt(3), p.P)
		y2.Sub(y2, new(big.Int).Mul(x, big.NewInt(3))).Add(y2, p.B).Mod(y2, p.P)
		y := new(big.Int).ModSqrt(y2, p.P)
		if x.Cmp(p.P) >= 0 || y == nil {
			continue
		}
		if y.Bit(0) == 1 {
			y.Sub(p.P, y)
		}
		point := append([]byte{4}, x.FillBytes(make([]byte, 32))...) // uncompressed
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(point, y.FillBytes(make([]byte, 32))...))
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	t.Fatal("no text hashes to a point")
	return ""
}

const (
	portierisHead = "apiVersion: portieris.cloud.ibm.com/v1\nkind: ClusterImagePolicy\nmetadata: {name: a}\n"
	onePortieris  = portierisHead + "spec:\n  repositories:\n  - name: \"*\"\n"
)

// bomb returns YAML whose aliases grow tenfold with each line.
func bomb() string {
	b := strings.Builder{}
	b.WriteString("a0: &a0 [x]\n")
	for i := range 12 {
		aliases := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ",")
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, aliases)
	}
	return b.String()
}

// Bad input gives one line that begins with the file, and no objects.
func TestBadInput(t *testing.T) {
	for name, c := range map[string]struct {
		files []File
		want  string
	}{
		"no YAML":   {[]File{{"a", []byte("a: [")}}, "a: is neither YAML nor JSON"},
		"binary":    {[]File{{"a", []byte("\x00\x01\x02")}}, "a: is neither YAML nor JSON"},
		"empty":     {[]File{{"a", nil}}, "a: is empty"},
		"comments":  {[]File{{"a", []byte("# nothing\n---\n")}}, "a: is empty"},
		"a list":    {[]File{{"a", []byte("[1, 2]")}}, "is no mapping"},
		"something": {[]File{{"a", []byte("b: 1")}}, "is none of the policies that are converted"},
		"a Pod": {
			[]File{{"a", []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: a}")}}, "has the kind Pod of v1",
		},
		"ours": {
			[]File{{"a", []byte("apiVersion: countersign.dev/v1alpha1\nkind: ImagePolicy")}},
			"is of Countersign already",
		},
		"a template": {
			[]File{{"a", []byte("# {{ a }}\nname: {{ .Values.name }}\n")}},
			"a:2: this is a template that is not rendered",
		},
		"large":     {[]File{{"a", make([]byte, MaxBytes+1)}}, "is larger than the 4 MiB"},
		"aliases":   {[]File{{"a", []byte(bomb())}}, "with its aliases resolved, the file has more than"},
		"recursive": {[]File{{"a", []byte("a: &a [*a]")}}, "an alias contains itself"},
		"deep":      {[]File{{"a", []byte(strings.Repeat("[", 9000) + strings.Repeat("]", 9000))}}, "nest deeper than"},
		"a field twice": {
			[]File{{"a", []byte("default: []\ndefault: []")}}, `a:2: field "default" stands twice`,
		},
		"a policy twice": {
			[]File{{"a", []byte(onePortieris)}, {"b", []byte(onePortieris)}}, `b:1: the document is a second ClusterImagePolicy "a"`,
		},
		"a policy twice in one file": {
			[]File{{"a", []byte(onePortieris + "---\n" + onePortieris)}}, `a:8: the document is a second ClusterImagePolicy "a"`,
		},
		"two policy.json": {
			[]File{{"a", []byte(`{"default":[{"type":"reject"}]}`)}, {"b", []byte(`{"default":[{"type":"reject"}]}`)}},
			"is a second file of containers",
		},
		"no name": {
			[]File{{"a", []byte(strings.Replace(onePortieris, "metadata: {name: a}", "metadata: {}", 1))}},
			"has no name",
		},
		"no spec": {[]File{{"a", []byte(portierisHead)}}, "has no spec"},
		"pattern": {
			[]File{{"a", []byte(portierisHead + "spec: {repositories: [{name: \"a//b\"}]}")}}, "is no pattern",
		},
		"a number": {[]File{{"a", []byte(portierisHead + "spec: {repositories: 3}")}}, "spec.repositories is no list"},
		"no namespace": {
			[]File{{"a", []byte(strings.Replace(onePortieris, "ClusterImage", "Image", 1))}},
			"has no namespace: write it, or name it",
		},
		"only Secrets": {
			[]File{{"a", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: a}")}}, "no policy to convert",
		},
		"a Secret twice": {
			[]File{{"a", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\n---\n" +
				"apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: c}")}}, `a:5: the document is a second Secret "a"`,
		},
		"validator missing": {
			[]File{{"a", []byte("policy: [{pattern: \"*:*\", validator: x}]")}}, `names the validator "x", which is not there`,
		},
		"a private key": {
			[]File{{"a", []byte("validators: [{name: default, type: cosign, trustRoots: [{name: default, " +
				"key: \"-----BEGIN PRIVATE KEY-----\\nc2VjcmV0\\n-----END PRIVATE KEY-----\"}]}]\n" +
				"policy: [{pattern: \"*:*\"}]")}},
			"has a private key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Convert(c.files, Options{})
			if err == nil {
				t.Fatalf("got %v, want an error with %q", r, c.want)
			}
			got := err.Error()
			if !strings.Contains(got, c.want) || strings.Contains(got, "\n") || strings.Contains(got, "c2VjcmV0") {
				t.Errorf("got %q, want one line with %q and no key", got, c.want)
			}
		})
	}
}

// --from refuses a file of another product.
func TestFrom(t *testing.T) {
	_, err := Convert([]File{{"a", []byte(onePortieris)}}, Options{From: Connaisseur})
	if want := "is of portieris, and --from names connaisseur"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	if _, err := Convert([]File{{"a", []byte(onePortieris)}}, Options{From: Portieris}); err != nil {
		t.Errorf("got %v, want no error", err)
	}
}

// Two requirements of one policy by keys of one name have different roles: else one signature would
// meet both.
func TestThreatConvertedRequirementsStayApart(t *testing.T) {
	r, err := Convert([]File{{"policy.json", []byte(`{"default": [
		{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/ci/key.gpg"},
		{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/qa/key.gpg"},
		{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/ops/key.gpg", "signedIdentity": {"type": "matchRepository"}}
	]}`)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	roles := map[string]bool{}
	for _, q := range r.Policies[0].Spec.RequiredRoles {
		roles[string(q.Role)] = true
	}
	if len(roles) != 3 {
		t.Errorf("got roles %v, want 3", roles)
	}
}

// A user and a password in the source are never written.
func TestPasswordsAreNotWritten(t *testing.T) {
	r := convertCase(t, "connaisseur-2", golden(t)["connaisseur-2"])
	var b strings.Builder
	if err := r.Write(&b, "json"); err != nil {
		t.Fatal(err)
	}
	for _, n := range r.Notes {
		b.WriteString(n.String())
	}
	if strings.Contains(b.String(), "not-carried") {
		t.Error("got the password of the source, want none")
	}
}

func FuzzConvert(f *testing.F) {
	f.Add([]byte(onePortieris))
	f.Add([]byte(`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/a"}]}`))
	f.Add([]byte(bomb()))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Convert([]File{{"f", data}}, Options{SourceNamespace: "n"})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line", err)
			}
			return
		}
		if len(r.Policies) == 0 {
			t.Error("got no policies, want some or an error")
		}
	})
}
