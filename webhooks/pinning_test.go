package webhooks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/randfill"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/trust"
)

// With pinDigests None, validation warns the client, once for each image, that the node may run
// another digest. Mutation does not warn.
func TestUnpinnedIsWarnedOf(t *testing.T) {
	const warning = `image "` + signed +
		`": verified as sha256:aaaaaaaa... and not pinned to it (pinDigests: None): the node asks the registry again what the tag means`
	pinning := func(pin v1alpha1.PinDigests) v1alpha1.ImagePolicySpec {
		return requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.PinDigests = pin })
	}
	warned := requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.Mode, s.PinDigests = v1alpha1.ModeWarn, v1alpha1.PinNone
	})
	cases := map[string]struct {
		policies    []v1alpha1.ImagePolicySpec
		object, old any
		want        []string
	}{
		"Pod": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone)}, object("Pod", signed), nil, []string{warning},
		},
		"template": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone)}, object("Deployment", signed), nil, []string{warning},
		},
		"three containers": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone)}, object("Pod", signed, signed, signed), nil,
			[]string{warning},
		},
		"by digest": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone)}, object("Pod", pinned, repository+"@"+digestA),
			nil, nil,
		},
		"not covered": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone)}, object("Pod", elsewhere), nil, nil,
		},
		"not changed": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone)}, object("Deployment", signed),
			object("Deployment", signed), nil,
		},
		"changed": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone)}, object("Deployment", signed),
			object("Deployment", elsewhere), []string{warning},
		},
		"another policy pins": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone), pinning(v1alpha1.PinPods)},
			object("Deployment", signed), nil, nil,
		},
		"template, Pods pinned": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinPods)}, object("Deployment", signed), nil, nil,
		},
		"template, all pinned": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinAll)}, object("Deployment", signed), nil, nil,
		},
		"only in mode Warn": {[]v1alpha1.ImagePolicySpec{warned}, object("Pod", signed), nil, nil},
		"beside what only warns": {
			[]v1alpha1.ImagePolicySpec{pinning(v1alpha1.PinNone), warned}, object("Pod", signed, elsewhere), nil,
			[]string{warning},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.policies...)
			kind := "Deployment"
			if _, isPod := c.object.(*corev1.Pod); isPod {
				kind = "Pod"
			}
			r := request{kind: kind, object: c.object, old: c.old}
			if mutated := b.send(t, MutatePath, r.review(t)); len(mutated.Warnings) > 0 {
				t.Errorf("mutation: got the warnings %q, want none", mutated.Warnings)
			}
			_, got := b.admit(t, r)
			wantAdmitted(t, got)
			if diff := cmp.Diff(c.want, got.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}

// The API server calls the webhook again if another one has changed the object. The second call
// changes nothing, or pins an image again that the other webhook has unpinned.
func TestPinningIsIdempotent(t *testing.T) {
	for _, pin := range []v1alpha1.PinDigests{v1alpha1.PinPods, v1alpha1.PinAll} {
		b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.PinDigests = pin }))
		for _, k := range kinds(t) {
			if pin == v1alpha1.PinPods && !k.IsPod() {
				continue
			}
			r := request{kind: k.Name, object: object(k.Name, signed, elsewhere, pinned, repository+"@"+digestA)}
			first := b.mutate(t, r)
			wantImage(t, first, pinned)
			r.object = first
			if again := b.send(t, MutatePath, r.review(t)); len(again.Patch) > 0 {
				t.Errorf("%s, %s: got the patch %s from the second call, want none", pin, k.Name, again.Patch)
			}
			r.object = bytes.ReplaceAll(first, []byte("@"+digestA), nil)
			wantImage(t, b.mutate(t, r), pinned)
		}
	}
}

// withOlder adds the trust root "older", where both roles have signed digestB for the tag.
func (b *bench) withOlder() *root {
	older := &root{}
	older.answers(&evidence{statements: []trust.Statement{
		{Digest: digestB, Tag: "signed", Role: "ci"}, {Digest: digestB, Tag: "signed", Role: "qa"},
	}}, nil)
	b.Store.PutRoot("older", store.Root{Verifier: older})
	return older
}

// byEither returns the policy of requireBoth with both trust roots.
func byEither(pin v1alpha1.PinDigests) v1alpha1.ImagePolicySpec {
	return requireBoth(func(s *v1alpha1.ImagePolicySpec) {
		s.PinDigests, s.TrustRoots = pin, append(s.TrustRoots, "older")
	})
}

// An update keeps a pinned digest of the same tag if that digest is signed, even if the tag has
// moved since. So the update does not change the image.
func TestUpdateLeavesWhatIsPinned(t *testing.T) {
	all, pods, none := byEither(v1alpha1.PinAll), byEither(v1alpha1.PinPods), byEither(v1alpha1.PinNone)
	const moved = signed + "@" + digestB // the signed digest of the tag when the object was created
	const respelled = "Registry.example.com:443/acme/app:signed"
	cases := map[string]struct {
		policies   []v1alpha1.ImagePolicySpec
		old, given string
		template   string // the image of a template after the update
		pod        string // the image of a Pod after the update
	}{
		"all":              {[]v1alpha1.ImagePolicySpec{all}, moved, signed, moved, moved},
		"all, beside none": {[]v1alpha1.ImagePolicySpec{none, all}, moved, signed, moved, moved},
		"pods":             {[]v1alpha1.ImagePolicySpec{pods}, moved, signed, signed, moved},
		"none":             {[]v1alpha1.ImagePolicySpec{none}, moved, signed, signed, signed},
		"another tag":      {[]v1alpha1.ImagePolicySpec{all}, ciOnly + "@" + digestB, signed, pinned, pinned},
		"another repository": {
			[]v1alpha1.ImagePolicySpec{all}, "registry.example.com/acme/other:signed@" + digestB, signed, pinned,
			pinned,
		},
		"a digest without a tag": {[]v1alpha1.ImagePolicySpec{all}, repository + "@" + digestB, signed, pinned, pinned},
		"not pinned":             {[]v1alpha1.ImagePolicySpec{all}, ciOnly, signed, pinned, pinned},
		"not pinned, respelled": {
			[]v1alpha1.ImagePolicySpec{all}, signed, respelled, respelled + "@" + digestA, respelled + "@" + digestA,
		},
		"the digest is given":  {[]v1alpha1.ImagePolicySpec{all}, moved, pinned, pinned, pinned},
		"a corrected spelling": {[]v1alpha1.ImagePolicySpec{all}, respelled + "@" + digestB, signed, pinned, pinned},
		"another spelling": {
			[]v1alpha1.ImagePolicySpec{all}, moved, respelled, respelled + "@" + digestA, respelled + "@" + digestA,
		},
		"the same spelling": {
			[]v1alpha1.ImagePolicySpec{all}, respelled + "@" + digestB, respelled, respelled + "@" + digestB,
			respelled + "@" + digestB,
		},
		"no digest at all": {[]v1alpha1.ImagePolicySpec{all}, signed + "@sha256:bb", signed, pinned, pinned},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.policies...)
			b.withOlder()
			for _, k := range kinds(t) {
				want := c.template
				if k.IsPod() {
					want = c.pod
				}
				stored, got := b.admit(t, request{
					kind: k.Name, object: object(k.Name, c.given), old: object(k.Name, c.old),
				})
				wantAdmitted(t, got)
				wantImage(t, stored, want)
			}
		})
	}
}

// A digest of the old object stays only if the policies admit it. Otherwise the digest that is
// signed now replaces it, with a warning, or the update is denied. A Job cannot be changed: it
// keeps its digest, with a warning.
func TestThreatOldPinIsDecided(t *testing.T) {
	const unknown = "@sha256:eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"
	const moved = signed + "@" + digestB
	both := func(tag, digest string) []trust.Statement {
		return []trust.Statement{{Digest: digest, Tag: tag, Role: "ci"}, {Digest: digest, Tag: tag, Role: "qa"}}
	}
	fault := trust.NewFault(v1alpha1.ReasonUnreachable, "down")
	cases := map[string]struct {
		acme, older *evidence
		fault       error // of older
		old, given  string
		want        string // empty for a denial
	}{
		"not signed":               {older: usual(), old: signed + unknown, given: signed, want: pinned},
		"not signed, nor is a tag": {older: usual(), old: unsigned + unknown, given: unsigned},
		"signed by one role":       {older: usual(), old: ciOnly + "@" + digestB, given: ciOnly},
		"signed under another tag": {
			older: &evidence{statements: both("other", digestB)}, old: moved, given: signed, want: pinned,
		},
		"withdrawn":            {older: &evidence{}, old: moved, given: signed, want: pinned},
		"all withdrawn":        {acme: &evidence{}, older: &evidence{}, old: pinned, given: signed},
		"could not be checked": {fault: fault, old: moved, given: signed, want: pinned},
		"signed, and the tag is not": {
			acme: &evidence{}, older: &evidence{statements: both("signed", digestB)}, old: moved, given: signed,
			want: moved,
		},
		"as it is stored": {acme: &evidence{}, older: &evidence{}, old: moved, given: moved, want: moved},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, byEither(v1alpha1.PinAll))
			if c.acme != nil {
				b.root.answers(c.acme, nil)
			}
			b.withOlder().answers(c.older, c.fault)
			for _, k := range kinds(t) {
				r := request{kind: k.Name, object: object(k.Name, c.given), old: object(k.Name, c.old)}
				warned := strings.Join(b.send(t, MutatePath, r.review(t)).Warnings, "\n")
				stored, got := b.admit(t, r)
				want := c.want
				if k.Name == "Job" {
					want = c.old // the API server allows no change
				}
				if want == "" {
					wantDenied(t, got, 403, "has not signed")
					wantImage(t, stored, c.given)
					continue
				}
				wantAdmitted(t, got)
				wantImage(t, stored, want)
				if want != c.want {
					if !strings.Contains(warned, c.old) || !strings.Contains(warned, "a Job cannot be changed") {
						t.Errorf("a Job: got the warnings %q, want one that names %q", warned, c.old)
					}
					continue
				}
				if replaced := c.want != c.old; replaced != strings.Contains(warned, c.old) ||
					replaced != strings.Contains(warned, digestA) {
					t.Errorf("%s: got the warnings %q, want both digests named: %t", k.Name, warned, replaced)
				}
			}
		})
	}
}

// Before an old digest is replaced, its evidence is refreshed, as before any denial.
func TestOldPinIsRenewed(t *testing.T) {
	b := newBench(t, byEither(v1alpha1.PinAll))
	older := b.withOlder()
	again := older.answer
	older.answers(&evidence{}, nil)
	r := request{
		kind: "Deployment", object: object("Deployment", signed), old: object("Deployment", signed+"@"+digestB),
	}
	wantImage(t, b.mutate(t, r), pinned)
	older.mu.Lock()
	older.answer = again
	older.mu.Unlock()
	b.clock.Step(time.Minute)
	wantImage(t, b.mutate(t, r), signed+"@"+digestB)
}

// Only the digest of the same container stays. A container does not get the digest of another one.
func TestThreatOnlyTheSameImageIsLeft(t *testing.T) {
	b := newBench(t, requireBoth(func(s *v1alpha1.ImagePolicySpec) { s.PinDigests = v1alpha1.PinAll }))
	old := ciOnly + "@" + digestB
	for _, k := range kinds(t) {
		for name, r := range map[string]request{
			"another container":  {object: object(k.Name, signed, ciOnly), old: object(k.Name, old, signed)},
			"a further one":      {object: object(k.Name, old, ciOnly), old: object(k.Name, old)},
			"a new object":       {object: object(k.Name, ciOnly)},
			"another tag":        {object: object(k.Name, unsigned), old: object(k.Name, old)},
			"another digest":     {object: object(k.Name, ciOnly+"@"+digestA), old: object(k.Name, old)},
			"a digest alone":     {object: object(k.Name, ciOnly), old: object(k.Name, repository+"@"+digestB)},
			"an unpinned before": {object: object(k.Name, unsigned), old: object(k.Name, ciOnly)},
		} {
			r.kind = k.Name
			if _, got := b.admit(t, r); got.Allowed {
				t.Errorf("%s, %s: got an admission, want a denial", k.Name, name)
			}
		}
	}
}

// In random Pods with known and unknown fields, pinning replaces the references that it must and
// changes nothing else.
func TestPinningChangesNothingElse(t *testing.T) {
	b := newBench(t)
	changed := 0
	for seed := range uint64(60) {
		before := randomPod(t, seed)
		after := decoded(t, b.mutate(t, request{kind: "Pod", object: encode(t, before)}))
		want := decoded(t, encode(t, before))
		for _, field := range imageFields(want) {
			if field.object[field.key] == signed {
				field.object[field.key] = pinned
				changed++
			}
		}
		if diff := cmp.Diff(want, after); diff != "" {
			t.Fatalf("seed %d (-want +got):\n%s", seed, diff)
		}
	}
	if changed < 100 {
		t.Errorf("got %d pinned images in all, want at least 100 for a meaningful test", changed)
	}
}

func decoded(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	var v map[string]any
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// imageField is a field with an image reference.
type imageField struct {
	object map[string]any
	key    string
}

// imageFields finds the fields with references, independently of the code under test.
func imageFields(pod map[string]any) []imageField {
	var fields []imageField
	spec, _ := pod["spec"].(map[string]any)
	for _, list := range []string{"initContainers", "containers", "ephemeralContainers", "volumes"} {
		entries, _ := spec[list].([]any)
		for _, e := range entries {
			entry, _ := e.(map[string]any)
			if list != "volumes" {
				fields = append(fields, imageField{entry, "image"})
			} else if volume, ok := entry["image"].(map[string]any); ok {
				fields = append(fields, imageField{volume, "reference"})
			}
		}
	}
	return fields
}

// randomPod returns a Pod with random values in the known fields, images of the test in the fields
// for images, and unknown fields with images and other values everywhere.
func randomPod(t *testing.T, seed uint64) map[string]any {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	image := func() string {
		return []string{
			signed, signed, pinned, elsewhere, unsigned, "registry.example.com/acme/App", "",
		}[random.IntN(7)]
	}
	var pod corev1.Pod
	randfill.NewWithSeed(int64(seed)).NilChance(0.4).NumElements(1, 4).MaxDepth(12).Funcs(
		func(c *corev1.Container, f randfill.Continue) { f.FillNoCustom(c); c.Image = image() },
		func(c *corev1.EphemeralContainer, f randfill.Continue) { f.FillNoCustom(c); c.Image = image() },
		func(v *corev1.ImageVolumeSource, f randfill.Continue) { f.FillNoCustom(v); v.Reference = image() },
		func(v *metav1.FieldsV1, _ randfill.Continue) { v.SetRawString(`{"f:spec":{}}`) },
		func(v *metav1.Time, _ randfill.Continue) { *v = metav1.Time{} },
		func(s *string, _ randfill.Continue) { *s = oddText(random) },
	).Fill(&pod)
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []corev1.Container{{Name: "a", Image: signed}}
	}
	document := decoded(t, encode(t, &pod))
	for _, object := range jsonObjects(document) {
		if random.IntN(4) == 0 {
			object["x-"+oddText(random)] = unknown(random, image, 3)
		}
	}
	return document
}

// jsonObjects returns every JSON object within v.
func jsonObjects(v any) []map[string]any {
	switch v := v.(type) {
	case map[string]any:
		found := []map[string]any{v}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			found = append(found, jsonObjects(v[key])...)
		}
		return found
	case []any:
		var found []map[string]any
		for _, e := range v {
			found = append(found, jsonObjects(e)...)
		}
		return found
	}
	return nil
}

// unknown returns the value of an unknown field, which may look like a container.
func unknown(random *rand.Rand, image func() string, depth int) any {
	kind := random.IntN(8)
	if depth == 0 {
		kind = random.IntN(5)
	}
	switch kind {
	case 0:
		return nil
	case 1:
		return image()
	case 2:
		return json.Number(fmt.Sprintf("%d.5e%d", random.IntN(1000), random.IntN(300)))
	case 3:
		return json.Number(fmt.Sprint(random.Uint64()))
	case 4:
		return oddText(random)
	case 5:
		return []any{unknown(random, image, depth-1), unknown(random, image, depth-1)}
	}
	return map[string]any{
		"image": image(), "containers": unknown(random, image, depth-1),
		oddText(random): unknown(random, image, depth-1),
	}
}

// oddText returns text with characters that JSON, JSON pointers and HTML escape.
func oddText(random *rand.Rand) string {
	pieces := []string{
		"a", "/", "~", "~1", "~0", `"`, `\`, "<", ">", "&", "é", "\u2028", "\x7f", "image", signed, " ", "\n", "%",
	}
	var text strings.Builder
	for range random.IntN(4) {
		text.WriteString(pieces[random.IntN(len(pieces))])
	}
	return text.String()
}
