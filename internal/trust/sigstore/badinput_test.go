package sigstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/registry"
	"github.com/countersign-dev/countersign/internal/testenv/faultproxy"
	"github.com/countersign-dev/countersign/internal/trust"
)

// signIn pushes a signature on an image in a layout, and returns the digest of its blob.
func (b *registryBed) signIn(l layout, on image, by signer) (blob string) {
	b.t.Helper()
	content := payload(cosignType, "", on.DigestStr())
	if l == layoutBundle {
		content = envelope(b.t, by, bundleType, statementOf(signPredicate, on.DigestStr()))
		b.bundle(on, bundleType, content)
	} else {
		b.tagged(on, layerOf(content, by.sign(b.t, content), simpleSigning))
	}
	return digestOf(content)
}

// other is the layout that l is not.
func (l layout) other() layout {
	if l == layoutTag {
		return layoutBundle
	}
	return layoutTag
}

// The key of one role signs for no other role.
func TestThreatKeyOfAnotherRole(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem), keyRole("qa", 1, qa.pem)))
	for _, l := range both() {
		on := b.push()
		b.signIn(l, on, qa)
		e, err := fetch(t, root, on.Name(), nil)
		if err != nil || rolesOf(e) != "qa" {
			t.Errorf("%s: got %q and %v, want qa alone", l, rolesOf(e), err)
			continue
		}
		if got := whys(e, "ci"); !strings.Contains(got, `is a key of "qa" alone`) {
			t.Errorf("%s: got rejections %q, want whose key it is", l, got)
		}
	}
}

// What a registry answers for one layout, or for one blob, is "could not check" where it is not
// what the registry has. It hides nothing of the other layout, and withdraws nothing that was
// fetched before.
func TestThreatBadAnswersInOneLayout(t *testing.T) {
	t.Parallel()
	b, ci, qa := newRegistryBed(t), newSigner(t), newSigner(t)
	proxy := faultproxy.Run(t, "https://"+b.Host, b.CA)
	host := strings.TrimPrefix(proxy.URL, "https://")
	settings := []v1alpha1.Registry{{Host: host, CABundle: v1alpha1.RegistryCABundle(proxy.CA.PEM)}}
	root := build(t, trustRoot(settings, keyRole("ci", 1, ci.pem), keyRole("qa", 1, qa.pem)))
	page := func(status int) faultproxy.Fault {
		return faultproxy.Fault{Status: status, Body: "<html>", Header: map[string]string{"Content-Type": "text/html"}}
	}
	const unexpected = v1alpha1.ReasonUnexpectedAnswer
	for name, c := range map[string]struct {
		fault    faultproxy.Fault
		reason   string
		blobOnly bool // the list may be anything else that is well-formed
	}{
		"401":               {fault: faultproxy.Fault{Status: 401}, reason: v1alpha1.ReasonUnauthorized},
		"403":               {fault: faultproxy.Fault{Status: 403}, reason: v1alpha1.ReasonUnauthorized},
		"500":               {fault: faultproxy.Fault{Status: 500}, reason: v1alpha1.ReasonServerError},
		"endless":           {fault: faultproxy.Fault{Endless: true}, reason: v1alpha1.ReasonTooLarge},
		"cut":               {fault: faultproxy.Fault{Cut: 20}, reason: v1alpha1.ReasonUnreachable},
		"truncated":         {fault: faultproxy.Fault{Truncate: 20}, reason: unexpected},
		"a web page":        {fault: page(http.StatusOK), reason: unexpected},
		"404 by a web page": {fault: page(http.StatusNotFound), reason: unexpected},
		"another hash":      {fault: faultproxy.Fault{Corrupt: true}, reason: unexpected, blobOnly: true},
	} {
		for _, l := range both() {
			on := b.push()
			blob := b.signIn(l, on, ci)
			b.signIn(l.other(), on, qa)
			there := strings.Replace(on.Name(), b.Host, host, 1)
			proxy.Set()
			held, err := fetch(t, root, there, nil)
			if err != nil || rolesOf(held) != "ci,qa" {
				t.Fatalf("%s, %s, without the fault: got %q and %v, want both roles", name, l, rolesOf(held), err)
			}
			byTag := strings.Replace(on.DigestStr(), ":", "-", 1)
			list := map[layout][]string{
				layoutTag: {byTag + ".sig"}, layoutBundle: {"/referrers/" + on.DigestStr(), byTag},
			}
			for part, paths := range map[string][]string{"list": list[l], "blob": {blob}} {
				if c.blobOnly && part == "list" {
					continue
				}
				fault := c.fault
				fault.Match = func(path string) bool {
					return slices.ContainsFunc(paths, func(end string) bool { return strings.HasSuffix(path, end) })
				}
				proxy.Set(fault)
				e, err := fetch(t, root, there, nil)
				if err != nil || rolesOf(e) != "qa" || len(e.Faults()) != 1 || e.Faults()[0].Reason != c.reason {
					t.Errorf("%s, %s, %s: got %q and %v, want qa and a fault %s", name, l, part, rolesOf(e), err,
						c.reason)
					continue
				}
				if again, err := fetch(t, root, there, held); err != nil || rolesOf(again) != "ci,qa" {
					t.Errorf("%s, %s, %s, later: got %q and %v, want both roles", name, l, part, rolesOf(again), err)
				}
			}
		}
	}
}

// raw is a manifest of any type.
type raw struct {
	mediaType types.MediaType
	body      []byte
}

func (r raw) RawManifest() ([]byte, error)        { return r.body, nil }
func (r raw) MediaType() (types.MediaType, error) { return r.mediaType, nil }

// What stands where a signature is expected and is no manifest of one, is no signature, and hides
// none in the other layout.
func TestThreatManifestOfAnotherType(t *testing.T) {
	t.Parallel()
	b, ci := newRegistryBed(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	for name, c := range map[string]struct {
		mediaType types.MediaType
		members   map[string]any
		because   string
	}{
		"an index": {
			types.OCIImageIndex, map[string]any{"manifests": []any{}}, "has a manifest without layers",
		},
		"an unknown type": {
			"application/vnd.example.unknown+json", map[string]any{"blobs": []any{}}, "has a manifest without layers",
		},
		"layers of another type": {
			types.OCIManifestSchema1, map[string]any{"layers": "none"}, "has a manifest without layers",
		},
		"a layer without a size": {
			types.OCIManifestSchema1, map[string]any{"layers": []any{map[string]any{
				"mediaType": "MEDIATYPE", "digest": "sha256:" + strings.Repeat("0", 64), "size": -1,
			}}}, "has a layer without a usable size or digest",
		},
		"a layer without a digest": {
			types.OCIManifestSchema1, map[string]any{"layers": []any{map[string]any{
				"mediaType": "MEDIATYPE", "digest": "../../secret", "size": 2,
			}}}, "has a layer without a usable size or digest",
		},
	} {
		for _, l := range both() {
			on := b.push()
			b.pushManifest(l, on, c.mediaType, c.members)
			e, err := fetch(t, root, on.Name(), nil)
			if err != nil {
				t.Errorf("%s, %s: got %v, want a verdict", name, l, err)
				continue
			}
			if rolesOf(e) != "" || len(e.Faults()) != 0 || !strings.Contains(whys(e, "ci"), c.because) {
				t.Errorf("%s, %s: got %q, rejections %q, want no role and %q", name, l, rolesOf(e), whys(e, "ci"),
					c.because)
			}
			b.signIn(l.other(), on, ci)
			if e, err := fetch(t, root, on.Name(), e); err != nil || rolesOf(e) != "ci" {
				t.Errorf("%s, %s, signed in the other layout: got %q and %v, want ci", name, l, rolesOf(e), err)
			}
		}
	}
}

// pushManifest pushes a manifest where a layout has its own.
func (b *registryBed) pushManifest(l layout, on image, mediaType types.MediaType, members map[string]any) {
	b.t.Helper()
	all := map[string]any{"schemaVersion": 2, "mediaType": mediaType}
	for name, value := range members {
		all[name] = value
	}
	layer := simpleSigning
	if l == layoutBundle {
		layer = bundleType
		all["artifactType"] = bundleType
		all["subject"] = map[string]any{
			"mediaType": types.OCIManifestSchema1, "digest": on.DigestStr(), "size": len(on.manifest),
		}
	}
	body, err := json.Marshal(all)
	if err != nil {
		b.t.Fatal(err)
	}
	body = []byte(strings.ReplaceAll(string(body), "MEDIATYPE", layer))
	var ref name.Reference = on.Context().Digest(digestOf(body))
	if l == layoutTag {
		ref = on.Context().Tag(strings.Replace(on.DigestStr(), ":", "-", 1) + ".sig")
	}
	if err := remote.Put(ref, raw{mediaType, body}, b.Options(b.t.Context())...); err != nil {
		b.t.Fatal(err)
	}
}

// Signatures in the hundreds do not hide that the rest was not read, and cost no more than 64.
func TestThreatSigstoreSignaturesInTheHundreds(t *testing.T) {
	t.Parallel()
	b, ci, other := newRegistryBed(t), newSigner(t), newSigner(t)
	root := build(t, trustRoot(b.settings(), keyRole("ci", 1, ci.pem)))
	v := root.Verifier.(*verifier)
	behind := v.registry
	for _, l := range both() {
		for _, c := range []struct {
			n           int
			first, role bool
		}{
			{maxSignatures, false, true}, {maxSignatures + 1, true, true}, {maxSignatures + 1, false, false},
			{1000, true, true}, {1000, false, false},
		} {
			on := b.push()
			v.registry = b.crowded(behind, l, on, c.n, c.first, ci, other)
			f := withFaults(root)
			e, err := fetch(t, root, on.Name(), nil)
			v.registry = behind
			at := fmt.Sprintf("%s, one of %d, first: %t", l, c.n, c.first)
			faults := 0
			if c.n > maxSignatures {
				faults = 1
			}
			if c.role && (err != nil || rolesOf(e) != "ci" || len(e.Faults()) != faults) {
				t.Errorf("%s: got %q and %v, want the role and %d faults", at, rolesOf(e), err, faults)
			}
			if fault, ok := errors.AsType[*trust.Fault](err); !c.role &&
				(!ok || fault.Reason != v1alpha1.ReasonTooLarge) {
				t.Errorf("%s: got %v, want a fault: TooLarge", at, err)
			}
			if n := len(f.requests); n > 2*maxSignatures+2 {
				t.Errorf("%s: got %d requests, want at most two for each signature, and two", at, n)
			}
		}
	}
}

// crowded pushes a signature by a role's key in a layout, among n-1 by another key. It returns a
// registry that has them.
func (b *registryBed) crowded(behind registries, l layout, on image, n int, first bool, by, other signer) registries {
	b.t.Helper()
	if l == layoutTag {
		content := payload(cosignType, "", on.DigestStr())
		layers := slices.Repeat([]mutate.Addendum{layerOf(content, other.sign(b.t, content), simpleSigning)}, n)
		layers[n-1] = layerOf(content, by.sign(b.t, content), simpleSigning)
		if first {
			slices.Reverse(layers)
		}
		b.tagged(on, layers...)
		return behind
	}
	b.signIn(layoutBundle, on, other)
	about := on.Context().Name()
	all, err := behind.Referrers(b.t.Context(), about, on.DigestStr(), "")
	if err != nil || len(all) != 1 {
		b.t.Fatalf("got %d referrers and %v, want 1", len(all), err)
	}
	b.signIn(layoutBundle, on, by)
	return repeated{registries: behind, digest: all[0].Digest, n: n, last: first}
}

// repeated is a registry that lists a referrer n-1 times, before or after the other.
type repeated struct {
	registries
	digest string
	n      int
	last   bool // the repeated one is listed after the other
}

func (r repeated) Referrers(ctx context.Context, repository, digest, artifactType string) ([]registry.Descriptor,
	error) {
	all, err := r.registries.Referrers(ctx, repository, digest, artifactType)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(d registry.Descriptor) bool { return d.Digest == r.digest })
	listed := slices.Repeat([]registry.Descriptor{all[i]}, r.n)
	listed[r.n-1] = all[1-i]
	if r.last {
		slices.Reverse(listed)
	}
	return listed, nil
}
