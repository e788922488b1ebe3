package simplesigning

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
)

// The six rules of containers-policy.json(5): for which references to an image each name counts. A
// pinned reference, with a tag and a digest, is one with its tag.
func TestThreatSignedIdentity(t *testing.T) {
	const mirror = "mirror.example.com/acme/app"
	names := []string{
		repository + ":v1", repository + ":v2", repository, repository + ":latest", repository + "@" + digestA,
		repository + "@" + digestB, repository + ":v1@" + digestA, repository + ":v1@" + digestB,
		"registry.example.com:443/acme/app:v1", "registry.example.com/acme/app2:v1", "registry.example.com/acme:v1",
		"registry.example.com.evil/acme/app:v1", "acme/app:v1", mirror + ":v1", "other.example.com/acme/app:v1", "!",
	}
	repo := func(also ...string) map[string]string { // v1 of all names of the repository
		m := map[string]string{}
		for _, n := range append(also, names[0], names[6], names[8]) {
			m[n] = "v1 @"
		}
		m[names[1]], m[names[3]] = "v2 @", "latest @"
		m[names[4]], m[names[5]], m[names[7]] = "@", "@", "@"
		return m
	}
	every := func(of ...int) map[string]string {
		m := map[string]string{}
		for _, n := range of {
			m[names[n]] = "v1 v2 latest @"
		}
		return m
	}
	for name, tt := range map[string]struct {
		spec  *v1alpha1.SignedIdentity
		image string            // default: repository
		want  map[string]string // the references for which each name counts: tags, and @ for the digest alone
	}{
		"default":                {want: repo()},
		"MatchRepoDigestOrExact": {spec: &v1alpha1.SignedIdentity{Type: "MatchRepoDigestOrExact"}, want: repo()},
		"MatchExact": {spec: &v1alpha1.SignedIdentity{Type: "MatchExact"}, want: map[string]string{
			names[0]: "v1", names[1]: "v2", names[3]: "latest", names[4]: "@", names[6]: "v1", names[8]: "v1",
		}},
		"MatchRepository": {
			spec: &v1alpha1.SignedIdentity{Type: "MatchRepository"}, want: every(0, 1, 2, 3, 4, 5, 6, 7, 8),
		},
		"ExactReference": {
			spec: &v1alpha1.SignedIdentity{Type: "ExactReference", Reference: repository + ":v2"}, image: mirror,
			want: every(1),
		},
		"ExactReference by digest": {
			spec:  &v1alpha1.SignedIdentity{Type: "ExactReference", Reference: repository + "@" + digestB},
			image: mirror, want: every(5),
		},
		"ExactRepository": {
			spec: &v1alpha1.SignedIdentity{Type: "ExactRepository", Repository: repository}, image: mirror,
			want: every(0, 1, 2, 3, 4, 5, 6, 7, 8),
		},
		"RemapIdentity, a host": {
			spec: &v1alpha1.SignedIdentity{
				Type: "RemapIdentity", Prefix: "mirror.example.com", SignedPrefix: "registry.example.com",
			},
			image: mirror, want: repo(),
		},
		"RemapIdentity, a repository": {
			spec:  &v1alpha1.SignedIdentity{Type: "RemapIdentity", Prefix: mirror, SignedPrefix: repository},
			image: mirror, want: repo(),
		},
		"RemapIdentity, another image": {
			spec: &v1alpha1.SignedIdentity{
				Type: "RemapIdentity", Prefix: "mirror.example.com/ac", SignedPrefix: "other.example.com/ac",
			},
			image: mirror, want: map[string]string{mirror + ":v1": "v1 @"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := newIdentity(tt.spec, false)
			if err != nil {
				t.Fatal(err)
			}
			image := about()
			if tt.image != "" {
				image = trust.Subject{Repository: tt.image, Pulled: tt.image, Digest: digestA}
			}
			got := map[string]string{}
			for _, n := range names {
				s := i.scope(n, &image)
				var refs []string
				for _, tag := range []string{"v1", "v2", "latest"} {
					if s.covers(tag) {
						refs = append(refs, tag)
					}
				}
				if s.covers("") {
					refs = append(refs, "@")
				}
				if len(refs) > 0 {
					got[n] = strings.Join(refs, " ")
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A rule that cannot hold for any image is refused, and the message names the field.
func TestSignedIdentityIsRefused(t *testing.T) {
	for says, spec := range map[string]v1alpha1.SignedIdentity{
		".reference: ":    {Type: "ExactReference", Reference: repository},
		".repository: ":   {Type: "ExactRepository", Repository: repository + ":v1"},
		".prefix: ":       {Type: "RemapIdentity", Prefix: "mirror", SignedPrefix: "registry.example.com"},
		".signedPrefix: ": {Type: "RemapIdentity", Prefix: "mirror.example.com", SignedPrefix: "registry.example.com/"},
		`.type: "Other" `: {Type: "Other"},
	} {
		if _, err := newIdentity(&spec, false); err == nil ||
			!strings.HasPrefix(err.Error(), "spec.simpleSigning.signedIdentity"+says) {
			t.Errorf("got %v, want a fault of %q", err, says)
		}
	}
	both := &v1alpha1.SignedIdentity{Type: "RemapIdentity", Prefix: "a.example.com", SignedPrefix: "b.example.com"}
	if _, err := newIdentity(both, true); err == nil || !strings.Contains(err.Error(), "identityRemap") {
		t.Errorf("got %v beside identityRemap, want a fault", err)
	}
}

// Under MatchExact a signature of a tag is none of the digest alone, except for what runs. The
// others are for both.
func TestThreatDigestAloneUnderMatchExact(t *testing.T) {
	l, ci := newLookaside(t), newEntity(t, nil)
	for kind, want := range map[v1alpha1.SignedIdentityType][]string{
		"MatchExact": {"ci under v1"}, "MatchRepoDigestOrExact": {"ci"},
	} {
		tr := l.spec(of(t, "ci", 1, ci))
		tr.Spec.SimpleSigning.SignedIdentity = &v1alpha1.SignedIdentity{Type: kind}
		l.put(ok(t, ci))
		e := fetch(t, build(t, tr))
		if diff := cmp.Diff(want, provenBy(e, "")); diff != "" {
			t.Errorf("%s: %s", kind, diff)
		}
		if got := provenBy(e, "v1"); len(got) != 1 || got[0] != "ci" {
			t.Errorf("%s: got signed by %v for the tag, want by ci", kind, got)
		}
		if got := provenBy(e, "v2"); got != nil {
			t.Errorf("%s: got signed by %v for another tag, want by none", kind, got)
		}
	}
}
