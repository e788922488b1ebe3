package tuf_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	corev1 "k8s.io/api/core/v1"

	"github.com/countersign-dev/countersign/api/v1alpha1"
	"github.com/countersign-dev/countersign/internal/trust"
	"github.com/countersign-dev/countersign/internal/trust/tuf"
)

// requested returns the names of the files that were requested, in order.
func (b *bed) requested() []string {
	all := []string{}
	for _, path := range b.server.Requests() {
		all = append(all, strings.TrimPrefix(path, folder+"/"))
	}
	return all
}

func wantRequests(t *testing.T, b *bed, want ...string) {
	t.Helper()
	got := b.requested()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got requests %q, want %q", got, want)
	}
}

// Only the files that may list the image are fetched, each once for all images, and again only when
// it has changed.
func TestOnlyWhatAnImageNeedsIsFetched(t *testing.T) {
	b := newBed(t)
	const other = "registry.example.com/other/app"
	b.delegate(targets, "ci", "registry.example.com/acme/*")
	b.delegate(targets, "others", "registry.example.com/other/*")
	b.delegate(targets, "security", "*/*/*")
	bins, err := b.Split("security", "bin", 6)
	b.must(err)
	first := b.Bin("security", app+":v1")
	second := ""
	tag := 1
	for second == "" || second == first {
		tag++
		second = b.Bin("security", fmt.Sprintf("%s:v%d", app, tag))
	}
	b.sign(app, "v1", digestOf("v1"), "ci", first)
	b.publish(append([]string{targets, "ci", "others", "security"}, bins...)...)
	b.requested()
	r := b.root()
	e := b.fetch(r, app+":v1", nil)
	wantRequests(t, b, "2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json", "1.ci.json",
		"1.security.json", "1."+first+".json")
	same := b.fetch(r, app+":v1", e)
	wantRequests(t, b, "2.root.json", "timestamp.json")
	if same != e {
		t.Error("nothing has changed, and the evidence is another")
	}
	b.fetch(r, fmt.Sprintf("%s:v%d", app, tag), nil)
	wantRequests(t, b, "2.root.json", "timestamp.json", "1."+second+".json")
	b.fetch(r, other+":v1", nil)
	for _, name := range b.requested() {
		if strings.HasSuffix(name, "ci.json") {
			t.Errorf("got %s requested for an image that it may not list", name)
		}
	}
	if again := b.fetch(r, app+":v1", e); again != e {
		t.Error("files for other images were loaded, and the evidence of this one is another")
	}
	b.requested()

	// A publication costs what it changes, and all bins once a digest without a tag is needed.
	b.sign(app, "v1", digestOf("v2"), "ci")
	b.publish("ci")
	e = b.fetch(r, app+":v1", e)
	wantRequests(t, b, "2.root.json", "timestamp.json", "3.snapshot.json", "2.ci.json")
	wantRoles(t, e, "v1", digestOf("v2"), "ci")
	wantRoles(t, e, "v1", digestOf("v1"), "security")
	whole := b.fetch(r, app+"@"+digestOf("v1"), nil)
	got := b.requested()
	if n := len(got); n < 61 || n > 65 || slices.Contains(got, "1.others.json") {
		t.Errorf("got %d requests for a digest, want the further of 64 bins, and not others.json: %q", n, got)
	}
	wantRoles(t, whole, "", digestOf("v1"), "security")
	wantRoles(t, whole, "", digestOf("v2"), "ci")
	b.fetch(r, app+"@"+digestOf("v1"), whole)
	wantRequests(t, b, "2.root.json", "timestamp.json")
}

// A digest without a tag is signed by a role under any tag of its repository, and under no tag of
// another.
func TestDigestUnderAnyTag(t *testing.T) {
	b := newBed(t)
	digest := digestOf("app")
	for _, name := range []string{"ci", "qa", "security"} {
		b.delegate(targets, name, "*/*/*", "*/*")
	}
	b.sign(app, "v1", digest, "ci")
	b.sign(app, "latest", digest, "qa")
	b.sign(app, "v0", digestOf("older"), "qa")
	b.sign(app+"s", "v1", digest, "security")
	b.sign("registry.example.com/acme", "v1", digest, "security")
	b.must(b.Sign("security", app+":v1/x", digest, 1))
	b.must(b.Sign("security", app+":no tag", digest, 1))
	b.publish(targets, "ci", "qa", "security")
	e := b.fetch(b.root(), app+"@"+digest, nil)
	wantRoles(t, e, "", digest, "ci", "qa")
	wantRoles(t, e, "latest", digest, "qa")
	wantRoles(t, e, "latest", digestOf("older"))
	wantRoles(t, e, "", digestOf("older"), "qa")
	wantRoles(t, e, "", "", "ci", "qa", "qa")
}

// A thousand image repositories with one TUF repository: its metadata is fetched and held once.
func TestOneMetadataForAllImages(t *testing.T) {
	const images = 1000
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	name := func(i int) string { return fmt.Sprintf("registry.example.com/acme/app-%d", i) }
	for i := range images {
		b.sign(name(i), "v1", digestOf(name(i)), "ci")
	}
	b.publish(targets, "ci")
	b.requested()
	r := b.root()
	all, mu := map[trust.Subject]trust.Evidence{}, sync.Mutex{}
	var wg sync.WaitGroup
	for i := range images {
		wg.Go(func() {
			about := subject(t, r, name(i)+"@"+digestOf(name(i)))
			e, err := r.Fetch(background(t), about, nil)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all[about] = e
		})
	}
	wg.Wait()
	requests := b.requested()
	if n := len(requests); n > 20 {
		t.Errorf("got %d requests for %d images, want each file once: %.300q", n, images, requests)
	}
	var size, biggest int64
	for about, e := range all {
		wantRoles(t, e, "v1", digestOf(about.Repository), "ci")
		size, biggest = size+e.(trust.Sized).Size(), max(biggest, e.(trust.Sized).Size())
		if about.InRepository() != (trust.Subject{Shared: true}) {
			t.Fatalf("got %+v, want all images in one record", about)
		}
	}
	if rest := size - biggest; rest > images*2000 || biggest < 100<<10 {
		t.Errorf("got %d bytes for one image, and %d for the %d others: the metadata must count once", biggest, rest,
			images-1)
	}
	packed, err := r.(trust.Keeper).Pack(all)
	b.must(err)
	if len(packed) > 300<<10 {
		t.Errorf("got a record of %d bytes, want the metadata in it once", len(packed))
	}
	for about, e := range all {
		same, err := r.Fetch(background(t), about, e)
		if err != nil || same != e {
			t.Fatalf("got another evidence (%v) though nothing has changed", err)
		}
	}
	wantRequests(t, b)
}

// A request in the foreground gets what was published before it, whatever is under way.
func TestForegroundSeesWhatWasPublished(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.publish(targets, "ci")
	r := b.root()
	e := b.fetch(r, app+":v1", nil)
	wantRoles(t, e, "v1", "")
	arrived, release := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(arrived); <-release })
	b.server.Fault(func(path string, w http.ResponseWriter) bool {
		if !strings.HasSuffix(path, "/timestamp.json") {
			return false
		}
		raw := b.server.Files()[path]
		once()
		_, _ = w.Write(raw)
		return true
	})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = r.Fetch(t.Context(), subject(t, r, app+":v2"), nil) })
	<-arrived
	b.sign(app, "v1", digestOf("v1"), "ci")
	b.publish("ci")
	var later trust.Evidence
	var err error
	wg.Go(func() { later, err = r.Fetch(t.Context(), subject(t, r, app+":v1"), e) })
	close(release)
	wg.Wait()
	b.must(err)
	wantRoles(t, later, "v1", digestOf("v1"), "ci")
}

// With {repository} in the server, each image repository has its own TUF repository.
func TestTUFRepositoryForEachImage(t *testing.T) {
	b := newBedIn(t, "/x/registry.example.com:5000/acme/app/metadata", true)
	const name = "registry.example.com:5000/acme/app"
	b.delegate(targets, "ci", "*")
	b.must(b.Sign("ci", "v1", digestOf("v1"), 1))
	b.publish(targets, "ci")
	r := b.root(func(tr *v1alpha1.TrustRoot) {
		tr.Spec.TUF.Server, tr.Spec.TUF.TargetPath = b.server.URL+"/x/{repository}/metadata/", "{tag}"
		tr.Spec.IdentityRemap = []v1alpha1.IdentityRemap{
			{Prefix: "mirror.example.com/", SignedPrefix: "registry.example.com:5000/"},
		}
	})
	for _, image := range []string{name, "mirror.example.com/acme/app"} {
		wantRoles(t, b.fetch(r, image+":v1", nil), "v1", digestOf("v1"), "ci")
		wantRoles(t, b.fetch(r, image+"@"+digestOf("v1"), nil), "", digestOf("v1"), "ci")
	}
	if about := subject(t, r, name+":v1"); about.InRepository() != (trust.Subject{Repository: name}) {
		t.Errorf("got the record %+v, want one of the image repository", about.InRepository())
	}
	e := b.fetch(r, "registry.example.com:5000/acme/none:v1", nil)
	if _, unsigned := e.(trust.Unsigned); !unsigned {
		t.Errorf("got %T of an image without a TUF repository, want trust.Unsigned", e)
	}
	b.must(r.Probe(t.Context(), "server"))
	b.server.Fault(func(_ string, w http.ResponseWriter) bool {
		w.WriteHeader(http.StatusForbidden) // as storage services answer for files that do not exist
		return true
	})
	b.must(r.Probe(t.Context(), "server"))
	_, err := r.Fetch(t.Context(), subject(t, r, "registry.example.com:5000/acme/new:v1"), nil)
	wantFault(t, err, v1alpha1.ReasonUnauthorized)
	b.server.Down()
	wantFault(t, r.Probe(t.Context(), "server"), v1alpha1.ReasonUnreachable)
}

// A server without the repository is a fault where it has the signatures of all images.
func TestServerWithoutARepository(t *testing.T) {
	b := newBed(t)
	r := b.root(func(tr *v1alpha1.TrustRoot) { tr.Spec.TUF.Server = b.server.URL + "/elsewhere" })
	wantFault(t, r.Probe(t.Context(), "server"), v1alpha1.ReasonUnexpectedAnswer, "timestamp.json", "spec.tuf.server")
	_, err := r.Fetch(t.Context(), subject(t, r, app+":v1"), nil)
	wantFault(t, err, v1alpha1.ReasonMetadataMissing, "spec.tuf.server")
	b.must(b.root().Probe(t.Context(), "server"))
}

// Faults of the server are no verdicts. What was verified before stays.
func TestThreatTUFServerOfImagesFails(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		reason string
	}{
		"dead":  {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, v1alpha1.ReasonUnreachable},
		"error": {func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }, v1alpha1.ReasonServerError},
		"HTML": {
			func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }, v1alpha1.ReasonUnexpectedAnswer,
		},
		"truncated": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "900")
			_, _ = io.WriteString(w, "{")
		}, v1alpha1.ReasonUnreachable},
		"other JSON": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{}")
		}, v1alpha1.ReasonMetadataInvalid},
		"endless": {func(w http.ResponseWriter) {
			for {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					panic(http.ErrAbortHandler)
				}
			}
		}, v1alpha1.ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			b.delegate(targets, "ci", "*/*/*")
			b.sign(app, "v1", digestOf("v1"), "ci")
			b.publish(targets, "ci")
			r := b.root()
			e := b.fetch(r, app+":v1", nil)
			b.server.Fault(func(path string, w http.ResponseWriter) bool {
				if !strings.HasSuffix(path, "/timestamp.json") {
					return false
				}
				c.answer(w)
				return true
			})
			for _, held := range []trust.Evidence{nil, e} {
				got, err := r.Fetch(t.Context(), subject(t, r, app+":v1"), held)
				wantFault(t, err, c.reason)
				if got != nil {
					t.Errorf("got evidence %v beside the fault, want none", got)
				}
			}
		})
	}
}

// The fault of one role's file takes no other role away at first sight, and nothing at all from
// what was verified completely.
func TestFileOfARoleCannotBeFetched(t *testing.T) {
	b := newBed(t)
	b.delegate(targets, "ci", "*/*/*")
	b.delegate(targets, "qa", "*/*/*")
	b.sign(app, "v1", digestOf("v1"), "ci", "qa")
	b.publish(targets, "ci", "qa")
	r := b.root()
	noQA := func(path string, w http.ResponseWriter) bool {
		if strings.HasSuffix(path, ".qa.json") {
			http.Error(w, "no such file", http.StatusNotFound)
			return true
		}
		return false
	}
	b.server.Fault(noQA)
	for _, image := range []string{app + ":v1", app + "@" + digestOf("v1")} {
		e := b.fetch(r, image, nil)
		wantRoles(t, e, "", digestOf("v1"), "ci")
		if faults := e.Faults(); len(faults) != 1 || faults[0].Reason != v1alpha1.ReasonMetadataMissing ||
			!strings.Contains(faults[0].Error(), "qa.json") {
			t.Errorf("%s: got faults %v, want one of qa.json", image, faults)
		}
	}
	b.server.Fault(nil)
	e := b.fetch(r, app+":v1", nil)
	wantRoles(t, e, "v1", digestOf("v1"), "ci", "qa")
	b.server.Fault(noQA)
	b.publish("qa")
	_, err := r.Fetch(t.Context(), subject(t, r, app+":v1"), e)
	wantFault(t, err, v1alpha1.ReasonMetadataMissing, "qa.json")
	b.server.Fault(nil)
	wantRoles(t, b.fetch(r, app+":v1", e), "v1", digestOf("v1"), "ci", "qa")
}

func TestCredentialsOfATUFServer(t *testing.T) {
	b := newBed(t)
	b.server.Require("reader", "secret")
	_, err := b.root().Fetch(t.Context(), subject(t, b.root(), app+":v1"), nil)
	wantFault(t, err, v1alpha1.ReasonUnauthorized)
	tr := b.trustRoot()
	tr.Spec.TUF.CredentialsSecretRef = &v1alpha1.SecretReference{Name: "reader"}
	material := trust.Material{}
	for _, ref := range (tuf.Format{}).Refers(&tr.Spec) {
		material[ref.KeySource] = map[string]string{
			corev1.BasicAuthUsernameKey: "reader\n", corev1.BasicAuthPasswordKey: "secret\n",
		}[ref.Key]
	}
	r, err := tuf.Format{}.Build(tr, material)
	b.must(err)
	b.must(r.Probe(t.Context(), "server"))
	tr.Spec.TUF.Server = "http://tuf.example.com"
	_, err = tuf.Format{}.Build(tr, material)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v for a server without TLS, want an error without the password", err)
	}
}

// A TrustRoot that cannot be used names the field.
func TestTUFTrustRootThatCannotBeUsed(t *testing.T) {
	b := newBed(t)
	b.must(b.Rotate(metadata.ROOT))
	other := strings.Replace(b.RootJSON(1), `"version":1`, `"version":2`, 1)
	for name, c := range map[string]struct {
		change func(*v1alpha1.TUFSpec)
		words  string
	}{
		"no root":     {func(s *v1alpha1.TUFSpec) { s.Root = "{}" }, "spec.tuf.root: the pinned root"},
		"forged root": {func(s *v1alpha1.TUFSpec) { s.Root = other }, "spec.tuf.root: the pinned root"},
		"root from": {func(s *v1alpha1.TUFSpec) {
			s.RootFrom = &v1alpha1.KeySource{Kind: "ConfigMap", Name: "root", Key: "root.json"}
		}, "spec.tuf.rootFrom (ConfigMap root, entry root.json)"},
		"path without {tag}": {func(s *v1alpha1.TUFSpec) { s.TargetPath = "{repository}" }, "spec.tuf.targetPath"},
		"path of all images": {func(s *v1alpha1.TUFSpec) { s.TargetPath = "{tag}" }, "it must contain {repository}"},
		"server":             {func(s *v1alpha1.TUFSpec) { s.Server += "/a{repository}" }, "spec.tuf.server"},
		"key": {func(s *v1alpha1.TUFSpec) {
			s.Roles = []v1alpha1.TUFRole{{Name: "qa", Keys: []v1alpha1.PEM{"no key"}}}
		}, "spec.tuf.roles[0].keys[0]: not PEM"},
		"threshold": {func(s *v1alpha1.TUFSpec) {
			key := v1alpha1.PEM(b.Keys["root"][0].PEM)
			s.Roles = []v1alpha1.TUFRole{{Name: "qa", Keys: []v1alpha1.PEM{key}, Threshold: 2}}
		}, "spec.tuf.roles[0].threshold: 2 keys must sign, and the role has 1"},
	} {
		t.Run(name, func(t *testing.T) {
			tr := b.trustRoot()
			c.change(tr.Spec.TUF)
			if _, err := (tuf.Format{}).Build(tr, trust.Material{}); err == nil ||
				!strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v, want an error with %q", err, c.words)
			}
		})
	}
}

// What has changed is loaded for all images in the first refresh after it, so that the record that
// is then written has it.
func TestChangedFilesAreLoadedForAllImages(t *testing.T) {
	b := newBed(t)
	const other = "registry.example.com/other/app"
	b.delegate(targets, "ci", "registry.example.com/acme/*")
	b.delegate(targets, "others", "registry.example.com/other/*")
	b.sign(app, "v1", digestOf("v1"), "ci")
	b.sign(other, "v1", digestOf("v1"), "others")
	b.publish(targets, "ci", "others")
	r := b.root()
	e, further := b.fetch(r, app+":v1", nil), b.fetch(r, other+":v1", nil)
	b.publish("ci", "others")
	b.requested()
	e = b.fetch(r, app+":v1", e)
	wantRequests(t, b, "2.root.json", "timestamp.json", "3.snapshot.json", "2.ci.json", "2.others.json")
	packed, err := r.(trust.Keeper).Pack(map[trust.Subject]trust.Evidence{
		subject(t, r, app+":v1"): e, subject(t, r, other+":v1"): further,
	})
	b.must(err)
	found, err := b.root().(trust.Keeper).Unpack(trust.Subject{Shared: true}, packed, nil)
	b.must(err)
	wantRoles(t, found[subject(t, r, other+":v1")], "v1", digestOf("v1"), "others")
}

// Once targets lists another key for a role, what the former key has signed counts no longer: if
// the file of the role has not changed, and if it has and is still signed by the former key.
func TestThreatTUFKeyThatWasReplaced(t *testing.T) {
	for name, changed := range map[string]bool{"the same file": false, "a new file by the former key": true} {
		t.Run(name, func(t *testing.T) {
			b := signedBed(t)
			r := b.root()
			e, whole := b.fetch(r, app+":v1", nil), b.fetch(r, app+"@"+digestOf("v1"), nil)
			wantRoles(t, e, "v1", digestOf("v1"), "ci", "qa")
			former := b.Keys["qa"]
			delegated := b.Targets[targets].Signed.Delegations
			delegated.Roles = delegated.Roles[:1]
			b.delegate(targets, "qa", "*/*/*")
			b.Keys["qa"] = former
			roles := []string{targets}
			if changed {
				roles = append(roles, "qa")
			}
			b.publish(roles...)
			wantRoles(t, b.fetch(r, app+":v1", e), "v1", digestOf("v1"), "ci")
			wantRoles(t, b.fetch(r, app+"@"+digestOf("v1"), whole), "", digestOf("v1"), "ci")
		})
	}
}
