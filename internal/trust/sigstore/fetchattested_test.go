package sigstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/trust"
)

// Junk attestations hide no signature, and junk signatures hide no attestation.
func TestThreatJunkBesideAttestations(t *testing.T) {
	t.Parallel()
	b, ci, qa, other := newRegistryBed(t), newSigner(t), newSigner(t), newSigner(t)
	tr := trustRoot(b.settings(), keyRole("ci", 1, ci.pem),
		tested(qa))
	root, first := build(t, tr), ""
	v := root.Verifier.(*verifier)
	v.registry = typed{v.registry, &first}
	push := func(junk func(on image, n int), n int) image {
		on := b.push()
		b.bundle(on, bundleType, envelope(t, ci, bundleType, statementOf(signPredicate, on.DigestStr())))
		b.attestIn(layoutBundle, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
		junk(on, n)
		return on
	}
	attestations := func(on image, n int) {
		for i := range n {
			b.attestIn(layoutBundle, on, other, loadTest, unlike(i, passed(true, loadTest, on.DigestStr())))
		}
	}
	signatures := func(on image, n int) {
		for i := range n {
			b.bundle(on, bundleType, envelope(t, other, bundleType,
				unlike(i, statementOf(signPredicate, on.DigestStr()))))
		}
	}
	for name, c := range map[string]struct {
		on     image
		want   string
		faults int
	}{
		"few attestations":  {push(attestations, 3), "ci,tested", 0},
		"many attestations": {push(attestations, maxAttested), "ci", 1},
		"few signatures":    {push(signatures, 3), "ci,tested", 0},
	} {
		first = loadTest
		e, err := fetch(t, root, c.on.Name(), nil)
		if err != nil || rolesOf(e) != c.want || len(e.Faults()) != c.faults {
			t.Errorf("%s: got %q, %v, want %q and %d faults", name, rolesOf(e), err, c.want, c.faults)
		}
	}
	many := push(signatures, maxSignatures)
	first = signPredicate
	if e, err := fetch(t, root, many.Name(), nil); err != nil || !strings.Contains(rolesOf(e), "tested") ||
		len(e.Faults()) != 1 {
		t.Errorf("many signatures: got %q, %v, want the attestation and a fault", rolesOf(e), err)
	}
}

// A new attestation that does not meet a condition cannot be hidden behind junk: not from evidence
// that was verified before it was pushed either.
func TestThreatBadAttestationBehindJunk(t *testing.T) {
	t.Parallel()
	b, qa, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), tested(qa)))
	large := func(n int) []byte {
		random := make([]byte, n*3/4)
		for i := range random {
			random[i] = byte(rand.Uint32())
		}
		return random
	}
	for name, push := range map[string]func(on image, good, bad mutate.Addendum){
		"many": func(on image, good, bad mutate.Addendum) {
			layers := []mutate.Addendum{good}
			for i := range maxAttested {
				layers = append(layers, attestationLayer(dsseOf(t, other,
					unlike(i, passed(true, loadTest, on.DigestStr()))), loadTest))
			}
			b.attestTag(on, append(layers, bad)...)
		},
		"megabytes": func(on image, good, bad mutate.Addendum) {
			b.attestTag(on, good, attestationLayer(large(4<<20), loadTest),
				attestationLayer(large(4<<20), loadTest), bad)
		},
		"one of megabytes": func(on image, good, bad mutate.Addendum) {
			b.attestTag(on, good, attestationLayer(large(12<<20), loadTest), bad)
		},
	} {
		on := b.push()
		good := attestationLayer(dsseOf(t, qa, passed(true, loadTest, on.DigestStr())), loadTest)
		padded := append(passed(false, loadTest, on.DigestStr()), bytes.Repeat([]byte(" "), 5<<20)...)
		b.attestTag(on, good)
		before, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(before) != "tested" {
			t.Fatalf("%s: got %q and %v, want the role", name, rolesOf(before), err)
		}
		push(on, good, attestationLayer(dsseOf(t, qa, padded), loadTest))
		for when, held := range map[string]trust.Evidence{"at first": nil, "later": before} {
			e, err := fetch(t, root, on.Name(), held)
			if err != nil || rolesOf(e) != "" || len(e.Faults()) != 1 ||
				e.Faults()[0].Reason != v1alpha1.ReasonTooLarge {
				t.Errorf("%s, %s: got %q, %v, want no role and a fault", name, when, rolesOf(e), err)
			}
		}
	}
}

// An attestation of megabytes, as a list of packages is, counts. It has no part in the bound of
// signatures.
func TestLargeAttestation(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest,
		"size(predicate.packages) == 20000")))
	for _, typedList := range []bool{false, true} {
		if typedList {
			root = withTypes(root)
		}
		for _, l := range both() {
			on := b.push()
			packages := make([]map[string]string, 20000)
			for i := range packages {
				packages[i] = map[string]string{
					"name": fmt.Sprintf("package-%d", i), "versionInfo": fmt.Sprint(i), "license": "MIT",
				}
			}
			list, err := json.Marshal(packages)
			if err != nil {
				t.Fatal(err)
			}
			content := bytes.Replace(passed(true, loadTest, on.DigestStr()), []byte(`"passed":true`),
				append([]byte(`"packages":`), list...), 1)
			b.attestIn(l, on, qa, loadTest, content)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil || rolesOf(e) != "tested" || len(e.Faults()) != 0 {
				t.Errorf("%s, typed %t: got %q, %v: %s", l, typedList, rolesOf(e), err, whys(e, "tested"))
				continue
			}
			if size := e.(trust.Sized).Size(); size < 10<<10 || size > 1<<20 {
				t.Errorf("%s: got evidence of %d bytes for %d bytes, want it compressed", l, size, len(content))
			}
		}
	}
}

// If a layout cannot be read at first, no attestation counts: the newest may be in it. Once all was
// read, an outage withdraws nothing.
func TestThreatAttestationsInPart(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	down := trust.NewFault(v1alpha1.ReasonServerError, "the server failed")
	for _, l := range both() {
		root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem),
			tested(qa)))
		f := withFaults(root)
		on := b.push()
		content := payload(cosignType, "", on.DigestStr())
		b.tagged(on, layerOf(content, ci.sign(t, content), simpleSigning))
		b.attestIn(l, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
		fail := func(err error) {
			if f.attestations, f.referrers = err, nil; l == layoutTag {
				f.attestations, f.referrers = nil, err
			}
		}
		fail(down)
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != "ci" || len(e.Faults()) != 1 {
			t.Errorf("%s, the other layout fails: got %q, %v, want the signature alone, and a fault", l, rolesOf(e),
				err)
		}
		fail(nil)
		whole, err := fetch(t, root, on.Name(), e)
		if err != nil || rolesOf(whole) != "ci,tested" || len(whole.Faults()) != 0 {
			t.Fatalf("%s: got %q, %v, want both", l, rolesOf(whole), err)
		}
		for what, set := range map[string]func(){
			"the other layout fails": func() { fail(down) },
			"its layout fails":       func() { fail(down); f.attestations, f.referrers = f.referrers, f.attestations },
		} {
			set()
			e, err := fetch(t, root, on.Name(), whole)
			if err != nil || rolesOf(e) != "ci,tested" || len(e.Faults()) != 1 {
				t.Errorf("%s, later %s: got %q, %v, want both, and a fault", l, what, rolesOf(e), err)
			}
		}
	}
}

// Attestations cost no request where no role needs them, and no round trip beside signatures: the
// first requests are sent at once. A refresh of the same costs three requests.
func TestRequestsForAttestations(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	on := b.push()
	content := payload(cosignType, "", on.DigestStr())
	b.tagged(on, layerOf(content, ci.sign(t, content), simpleSigning))
	for _, l := range both() {
		b.attestIn(l, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	}
	requests := func(root *Root, held trust.Evidence, types bool) (string, trust.Evidence) {
		t.Helper()
		f := withFaults(root)
		if types {
			root.Verifier.(*verifier).registry = typed{registries: f}
		}
		e, err := fetch(t, root, on.Name(), held)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(f.requests)
		return strings.Join(f.requests, " "), e
	}
	signatures := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	if got, _ := requests(signatures, nil, false); got != "blob blob manifest referrers tag" {
		t.Errorf("no role needs attestations: got requests %q", got)
	}
	root := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest)))
	got, held := requests(root, nil, false)
	if got != "att blob blob blob manifest referrers tag" || rolesOf(held) != "tested" {
		t.Errorf("a role needs attestations: got requests %q and %q", got, rolesOf(held))
	}
	got, again := requests(root, held, false)
	if got != "att referrers tag" || again != held {
		t.Errorf("again: got requests %q, and the same evidence: %t", got, again == held)
	}
}

// meeting is a registry whose answers wait for each other.
type meeting struct {
	registries
	all sync.WaitGroup
}

func (m *meeting) meet(ctx context.Context) error {
	m.all.Done()
	met := make(chan struct{})
	go func() { m.all.Wait(); close(met) }()
	select {
	case <-met:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *meeting) Tagged(ctx context.Context, repository, tag string) (registry.Manifest, error) {
	if err := m.meet(ctx); err != nil {
		return registry.Manifest{}, err
	}
	return m.registries.Tagged(ctx, repository, tag)
}

func (m *meeting) Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor,
	error) {
	if err := m.meet(ctx); err != nil {
		return nil, err
	}
	return m.registries.Referrers(ctx, repository, digest, artifactType)
}

// Attestations are looked for beside signatures, and not after them.
func TestAttestationsAreFetchedBesideSignatures(t *testing.T) {
	t.Parallel()
	b, qa := newRegistryBed(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), attestedBy(keyRole("tested", 1, qa.pem), loadTest)))
	on := b.push()
	b.attestIn(layoutTag, on, qa, loadTest, passed(true, loadTest, on.DigestStr()))
	v := root.Verifier.(*verifier)
	m := &meeting{registries: v.registry}
	m.all.Add(3)
	v.registry = m
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := root.Fetch(ctx, root.Subject(parse(t, on.Name())), nil)
	if err != nil || rolesOf(e) != "tested" {
		t.Errorf("got %q and %v, want the role", rolesOf(e), err)
	}
}
