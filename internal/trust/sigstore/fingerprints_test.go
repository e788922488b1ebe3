package sigstore

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"github.com/countersign-dev/countersign/api/v1alpha1"
)

// The status shows the authorities of a trusted root, inline or by TUF, beside the keys: as long as
// identities sign by them.
func TestFingerprintsOfATrustedRoot(t *testing.T) {
	t.Parallel()
	b, qa := newIdentityBed(t), newSigner(t)
	key, err := parseKey(qa.pem)
	if err != nil {
		t.Fatal(err)
	}
	fulcio := fmt.Sprintf("%x", sha256.Sum256(b.Fulcio.Root.Raw))
	both := []string{fulcio, key.id}
	slices.Sort(both)
	byIdentity, byKey := identityRole("ci", 1, exactly(testIssuer, testSubject)), keyRole("qa", 1, qa.pem)
	missing, base := b.basedRoot(byIdentity, byKey)
	for name, c := range map[string]struct {
		root *Root
		want []string
	}{
		"inline":                  {buildWith(t, b.withTrusted("", byIdentity, byKey), b.TrustedRoot()), both},
		"inline, no identities":   {buildWith(t, b.withTrusted("", byKey), b.TrustedRoot()), []string{key.id}},
		"by TUF":                  {missing.WithBase(base, nil).(*Root), both},
		"by TUF, not fetched yet": {missing, []string{key.id}},
		"none":                    {build(t, trustRoot(b.settings(), byKey)), []string{key.id}},
	} {
		if got := c.root.Fingerprints(); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// The status has a bound, which the authorities must not exceed beside all keys.
func TestFingerprintsAreBounded(t *testing.T) {
	t.Parallel()
	b := newIdentityBed(t)
	var roles []v1alpha1.SigstoreRole
	for i := range maxKeys / 16 {
		role := keyRole(fmt.Sprint("role-", i), 1)
		for range 16 {
			role.Keys = append(role.Keys, v1alpha1.PEM(newSigner(t).pem))
		}
		roles = append(roles, role)
	}
	roles = append(roles, identityRole("ci", 1, exactly(testIssuer, testSubject)))
	got := buildWith(t, b.withTrusted("", roles...), b.TrustedRoot()).Fingerprints()
	if fulcio := fmt.Sprintf("%x", sha256.Sum256(b.Fulcio.Root.Raw)); len(got) != maxFingerprints ||
		!slices.Contains(got, fulcio) {
		t.Errorf("got %d fingerprints, with that of the authority: %t; want %d with it", len(got),
			slices.Contains(got, fulcio), maxFingerprints)
	}
}
