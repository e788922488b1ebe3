package imageref_test

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/imageref"
)

var (
	hexA    = strings.Repeat("a", 64)
	digestA = "sha256:" + hexA
	digestB = "sha256:" + strings.Repeat("b", 64)
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		in   string
		want imageref.Ref
	}{
		"short name": {
			"nginx", imageref.Ref{Host: "docker.io", Path: "library/nginx", Tag: "latest", Short: true},
		},
		"short name with tag": {
			"nginx:1.27", imageref.Ref{Host: "docker.io", Path: "library/nginx", Tag: "1.27", Short: true},
		},
		"short name with digest": {
			"nginx@" + digestA, imageref.Ref{Host: "docker.io", Path: "library/nginx", Digest: digestA, Short: true},
		},
		"user on docker.io": {
			"acme/app", imageref.Ref{Host: "docker.io", Path: "acme/app", Tag: "latest", Short: true},
		},
		"docker.io without library": {
			"docker.io/nginx",
			imageref.Ref{Host: "docker.io", Path: "library/nginx", Tag: "latest", Written: "docker.io/nginx"},
		},
		"docker.io in capitals": {
			"Docker.IO/nginx",
			imageref.Ref{Host: "docker.io", Path: "library/nginx", Tag: "latest", Written: "Docker.IO/nginx"},
		},
		"docker.io with port": {
			"docker.io:443/nginx",
			imageref.Ref{Host: "docker.io", Path: "library/nginx", Tag: "latest", Written: "docker.io:443/nginx"},
		},
		"docker.io on another port": {
			"docker.io:5000/nginx", imageref.Ref{Host: "docker.io:5000", Path: "nginx", Tag: "latest"},
		},
		"old name of docker.io": {
			"INDEX.docker.io:443/acme/app",
			imageref.Ref{Host: "docker.io", Path: "acme/app", Tag: "latest", Written: "INDEX.docker.io:443/acme/app"},
		},
		"old name, short": {
			"index.docker.io/nginx",
			imageref.Ref{Host: "docker.io", Path: "library/nginx", Tag: "latest", Written: "index.docker.io/nginx"},
		},
		"docker.io's own registry": {
			"registry-1.docker.io/acme/app",
			imageref.Ref{Host: "docker.io", Path: "acme/app", Tag: "latest", Written: "registry-1.docker.io/acme/app"},
		},
		"docker.io's hub": {
			"registry.hub.docker.com/library/nginx",
			imageref.Ref{
				Host: "docker.io", Path: "library/nginx", Tag: "latest",
				Written: "registry.hub.docker.com/library/nginx",
			},
		},
		"registry": {
			"registry.example.com/acme/app:v1", imageref.Ref{Host: "registry.example.com", Path: "acme/app", Tag: "v1"},
		},
		"upper-case host": {
			"Registry.EXAMPLE.com/acme/app:v1",
			imageref.Ref{
				Host: "registry.example.com", Path: "acme/app", Tag: "v1", Written: "Registry.EXAMPLE.com/acme/app",
			},
		},
		"upper-case tag stays": {
			"registry.example.com/acme/app:V1", imageref.Ref{Host: "registry.example.com", Path: "acme/app", Tag: "V1"},
		},
		"default port": {
			"registry.example.com:443/acme/app:v1",
			imageref.Ref{
				Host: "registry.example.com", Path: "acme/app", Tag: "v1", Written: "registry.example.com:443/acme/app",
			},
		},
		"default port, zeros": {
			"registry.example.com:00443/acme/app",
			imageref.Ref{
				Host: "registry.example.com", Path: "acme/app", Tag: "latest",
				Written: "registry.example.com:00443/acme/app",
			},
		},
		"other port, zeros": {
			"registry.example.com:05000/acme/app",
			imageref.Ref{
				Host: "registry.example.com:5000", Path: "acme/app", Tag: "latest",
				Written: "registry.example.com:05000/acme/app",
			},
		},
		"port 80 is not the default": {
			"registry.example.com:80/app", imageref.Ref{Host: "registry.example.com:80", Path: "app", Tag: "latest"},
		},
		"localhost": {"localhost/app", imageref.Ref{Host: "localhost", Path: "app", Tag: "latest"}},
		"localhost, default port": {
			"LOCALHOST:443/app",
			imageref.Ref{Host: "localhost", Path: "app", Tag: "latest", Written: "LOCALHOST:443/app"},
		},
		"localhost, port": {
			"localhost:5000/app", imageref.Ref{Host: "localhost:5000", Path: "app", Tag: "latest"},
		},
		"single label keeps its port": {
			"REGISTRY:443/app",
			imageref.Ref{Host: "registry:443", Path: "app", Tag: "latest", Written: "REGISTRY:443/app"},
		},
		"IPv4": {
			"10.0.0.1:5000/app", imageref.Ref{Host: "10.0.0.1:5000", Path: "app", Tag: "latest"},
		},
		"IPv6": {"[::1]:5000/app:v1", imageref.Ref{Host: "[::1]:5000", Path: "app", Tag: "v1"}},
		"IPv6, default port": {
			"[::1]:443/app:v1", imageref.Ref{Host: "[::1]", Path: "app", Tag: "v1", Written: "[::1]:443/app"},
		},
		"IPv6, long form": {
			"[0:0:0:0:0:0:0:1]/app:v1",
			imageref.Ref{Host: "[::1]", Path: "app", Tag: "v1", Written: "[0:0:0:0:0:0:0:1]/app"},
		},
		"IPv6, capitals and zeros": {
			"[2001:DB8::000A]/app:v1",
			imageref.Ref{Host: "[2001:db8::a]", Path: "app", Tag: "v1", Written: "[2001:DB8::000A]/app"},
		},
		"tag and digest": {
			"registry.example.com/app:v1@" + digestA,
			imageref.Ref{Host: "registry.example.com", Path: "app", Tag: "v1", Digest: digestA},
		},
		"longest tag": {
			"registry.example.com/app:" + strings.Repeat("t", 128),
			imageref.Ref{Host: "registry.example.com", Path: "app", Tag: strings.Repeat("t", 128)},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := imageref.Parse(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("Parse(%q) (-want +got):\n%s", tc.in, diff)
			}
			again, err := imageref.Parse(got.String())
			if want := inFull(got); err != nil || again != want {
				t.Errorf("Parse(%q) = %+v, %v; want %+v", got.String(), again, err, want)
			}
		})
	}
}

// inFull returns the reference that results from parsing its full form.
func inFull(r imageref.Ref) imageref.Ref {
	if r.Short = false; r.Name() == r.Repository() {
		r.Written = ""
	}
	return r
}

// nameByDocker returns the name under which Docker's clients sign, by their own library.
func nameByDocker(tb testing.TB, s string) string {
	tb.Helper()
	name, _, _ := strings.Cut(s, "@")
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		tb.Fatalf("Parse(%q): got a reference, but Docker's library returns %v", s, err)
	}
	return named.Name()
}

// Name is the name under which Docker's clients sign. A pinned reference keeps its spelling.
func TestNameEqualsDockersClients(t *testing.T) {
	for in, want := range map[string]struct{ name, pinned string }{
		"nginx":                       {"docker.io/library/nginx", "docker.io/library/nginx:latest"},
		"acme/app:v1":                 {"docker.io/acme/app", "docker.io/acme/app:v1"},
		"docker.io/nginx:v1":          {"docker.io/library/nginx", "docker.io/nginx:v1"},
		"index.docker.io/nginx:v1":    {"docker.io/library/nginx", "index.docker.io/nginx:v1"},
		"index.docker.io/acme/app:v1": {"docker.io/acme/app", "index.docker.io/acme/app:v1"},
		"Docker.IO/nginx:v1":          {"Docker.IO/nginx", "Docker.IO/nginx:v1"},
		"docker.io:443/nginx:v1":      {"docker.io:443/nginx", "docker.io:443/nginx:v1"},
		"registry-1.docker.io/acme/app": {
			"registry-1.docker.io/acme/app", "registry-1.docker.io/acme/app:latest",
		},
		"registry.example.com/acme/app:v1": {"registry.example.com/acme/app", "registry.example.com/acme/app:v1"},
		"registry.example.com:443/acme/app": {
			"registry.example.com:443/acme/app", "registry.example.com:443/acme/app:latest",
		},
		"Registry.Example.com/acme/app:V1":       {"Registry.Example.com/acme/app", "Registry.Example.com/acme/app:V1"},
		"registry.example.com:0443/a@" + digestA: {"registry.example.com:0443/a", "registry.example.com:0443/a"},
		"[0:0::1]:443/a:v1":                      {"[0:0::1]:443/a", "[0:0::1]:443/a:v1"},
	} {
		r := mustRef(t, in)
		if r.Name() != want.name || r.Name() != nameByDocker(t, in) {
			t.Errorf("Name of %q: got %q, want %q; for Docker it is %q", in, r.Name(), want.name, nameByDocker(t, in))
		}
		if got := r.Pinned(digestB); got != want.pinned+"@"+digestB {
			t.Errorf("Pinned of %q: got %q", in, got)
		}
		if again := mustRef(t, r.String()); again.Name() != r.Name() || again.Repository() != r.Repository() {
			t.Errorf("String of %q: got %q, with the name %q", in, r, again.Name())
		}
	}
}

// Another spelling of the host does not evade a pattern: a pattern that matches a repository
// matches every spelling.
func TestThreatSpellingOfAHostIsNoWayAround(t *testing.T) {
	for _, pattern := range []string{
		"registry.example.com/acme/**", "registry.example.com:443/acme/**", "Registry.example.com/acme/app",
		"*.example.com/**", "*/**",
	} {
		p := mustPattern(t, pattern)
		for _, host := range []string{
			"registry.example.com", "registry.example.com:443", "registry.example.com:0443", "REGISTRY.example.com",
			"Registry.Example.COM:443",
		} {
			for _, rest := range []string{"", ":v1", ":v1@" + digestA, "@" + digestA} {
				r := mustRef(t, host+"/acme/app"+rest)
				if !p.Match(r) || !index(p).Matches(r) {
					t.Errorf("got no match of %q and %s", pattern, host)
				}
				if again := mustRef(t, r.Pinned(digestB)); !p.Match(again) || again.Name() != r.Name() {
					t.Errorf("got no match of %q and %s after pinning as %s, or another name", pattern, host,
						r.Pinned(digestB))
				}
			}
		}
	}
}

// readsShort reports whether a node with search registries reads a reference as a short name: its
// first segment, as written, has neither '.' nor ':' and is not localhost.
func readsShort(tb testing.TB, s string) bool {
	tb.Helper()
	ref, err := reference.Parse(s)
	named, ok := ref.(reference.Named)
	if err != nil || !ok {
		tb.Fatalf("Parse(%q): got a reference, but the grammar of nodes returns %v", s, err)
	}
	host := reference.Domain(named)
	return !strings.ContainsAny(host, ".:") && host != "localhost"
}

func TestThreatShortNameIsTold(t *testing.T) {
	for in, want := range map[string]bool{
		"nginx": true, "nginx:1.27": true, "nginx@" + digestA: true, "nginx:1.27@" + digestA: true, "acme/app": true,
		"acme/team/app:v1": true,
		"library/nginx":    true, "deadbeef": true, "localhost": true, "localhost:5000": true, "localhosts/app": true,
		// without a slash there is no host
		"registry.example.com": true, "registry.example.com:5000": true, "docker.io": true, "index.docker.io": true,
		"docker.io/nginx": false, "Docker.IO/nginx": false, "index.docker.io/nginx": false,
		"registry-1.docker.io/acme/app": false,
		"localhost/app":                 false, "localhost:5000/app": false, "LOCALHOST:5000/app": false,
		"registry:5000/app": false, "registry:443/app": false,
		"a.b/app": false, "10.0.0.1/app": false, "[::1]/app": false, "registry.example.com:443/app": false,
		"registry.example.com/app@" + digestA: false,
	} {
		t.Run(in, func(t *testing.T) {
			got := mustRef(t, in)
			if got.Short != want || got.Short && got.Host != "docker.io" {
				t.Errorf("Parse(%q): got %+v, want Short %t", in, got, want)
			}
			if !strings.HasPrefix(in, "[") && readsShort(t, in) != want {
				t.Errorf("%q: got Short %t for a node", in, !want)
			}
			if again := mustRef(t, got.String()); again.Short {
				t.Errorf("String of %q: got %q, which is Short", in, got)
			}
		})
	}
	// Parse refuses text that some tools read as a short name and others as a host, an ID or
	// nothing.
	for _, in := range []string{
		"LOCALHOST/app", "Acme/app", "registry_1.example.com/app", "a.b--c__d/app", "registry.example.com./app",
		"./app", hexA, digestA, "sha256:aaaa",
	} {
		if got, err := imageref.Parse(in); err == nil {
			t.Errorf("Parse(%q): got %+v, want an error", in, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"empty":                      {"", "empty"},
		"too long":                   {strings.Repeat("a/", 600) + "a", "longer than 1024 bytes"},
		"path too long":              {"registry.example.com/" + strings.Repeat("a", 256), "255"},
		"white space":                {" nginx", "invalid reference format"},
		"line break":                 {"nginx\nx", "invalid reference format"},
		"upper-case path":            {"registry.example.com/Acme/app", "lowercase"},
		"upper-case short name":      {"Nginx", "lowercase"},
		"upper-case first segment":   {"Acme/app", "has capitals"},
		"tag too long":               {"nginx:" + strings.Repeat("t", 129), "invalid reference format"},
		"empty tag":                  {"nginx:", "invalid reference format"},
		"scheme":                     {"https://registry.example.com/app", "port"},
		"port not a number":          {"registry.example.com:http/app", "port"},
		"port zero":                  {"registry.example.com:0/app", "port"},
		"port too great":             {"registry.example.com:65536/app", "port"},
		"port with sign":             {"registry.example.com:+443/app", "port"},
		"final dot in the host":      {"registry.example.com./app", "invalid reference format"},
		"underscore in the host":     {"registry_1.example.com/app", "not the name of a registry host"},
		"dashes in the host":         {"a.b--c__d/app", "not the name of a registry host"},
		"host alone":                 {"registry.example.com/", "invalid reference format"},
		"dots for a path":            {"registry.example.com/../app", "invalid reference format"},
		"IPv6 broken":                {"[::zz]/app", "IPv6"},
		"IPv6 with zone":             {"[fe80::1%eth0]/app", "IPv6"},
		"IPv6 without bracket":       {"::1]/app", "invalid reference format"},
		"IPv4 as IPv6":               {"[::ffff:102:304]/app", "write the IPv4 address"},
		"sha512":                     {"nginx@sha512:" + strings.Repeat("a", 128), "use the sha256 digest"},
		"sha384":                     {"nginx@sha384:" + strings.Repeat("a", 96), "use the sha256 digest"},
		"digest too short":           {"nginx@sha256:" + hexA[1:], "64 lower-case"},
		"digest too long":            {"nginx@sha256:" + hexA + "a", "64 lower-case"},
		"digest in capitals":         {"nginx@sha256:" + strings.ToUpper(hexA), "64 lower-case"},
		"digest not hexadecimal":     {"nginx@sha256:" + hexA[1:] + "g", "64 lower-case"},
		"two digests":                {"nginx@" + digestA + "@" + digestB, "64 lower-case"},
		"empty digest":               {"nginx@", "not supported"},
		"bare hexadecimal image ID":  {hexA, "hexadecimal"},
		"image ID":                   {digestA, "image ID"},
		"image ID, shortened":        {"sha256:aaaa", "image ID"},
		"image ID, other algorithm":  {"sha512:aaaa", "image ID"},
		"image ID with a digest too": {"sha256:aaaa@" + digestA, "image ID"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := imageref.Parse(tc.in)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Parse(%q): got %+v, %v; want an error with %q", tc.in, got, err, tc.want)
			}
			if got != (imageref.Ref{}) {
				t.Errorf("Parse(%q) returned %+v beside an error", tc.in, got)
			}
		})
	}
}

func TestPinned(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"tag":         {"registry.example.com/acme/app:v1", "registry.example.com/acme/app:v1@" + digestB},
		"no tag":      {"nginx", "docker.io/library/nginx:latest@" + digestB},
		"digest only": {"registry.example.com/acme/app@" + digestA, "registry.example.com/acme/app@" + digestB},
		"tag and digest": {
			"registry.example.com/acme/app:v1@" + digestA, "registry.example.com/acme/app:v1@" + digestB,
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			ref, err := imageref.Parse(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			pinned := ref.Pinned(digestB)
			if pinned != tc.want {
				t.Errorf("Pinned: got %q, want %q", pinned, tc.want)
			}
			again, err := imageref.Parse(pinned)
			if err != nil || again.Repository() != ref.Repository() || again.Digest != digestB || again.Tag != ref.Tag {
				t.Errorf("Parse(%q) = %+v, %v", pinned, again, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "nginx", "Docker.IO:443/nginx", "registry:443/app", "[::1]:5000/app:v1", "[::FFFF:1:2]/a",
		"localhost:00443/a",
		"registry.example.com/acme/app:v1@" + digestA, "sha256:aaaa", "A/b", "a:1/b", "a//b", "a@sha256:",
		"index.docker.io/a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := imageref.Parse(s)
		if err != nil {
			if r != (imageref.Ref{}) {
				t.Fatalf("Parse(%q) returned %+v beside an error", s, r)
			}
			return
		}
		again, err := imageref.Parse(r.String())
		if err != nil || again != inFull(r) {
			t.Fatalf("Parse(%q) = %+v, and %q parses to %+v, %v", s, r, r.String(), again, err)
		}
		if r.Name() != nameByDocker(t, s) {
			t.Fatalf("Parse(%q) = %+v, with the name %q; for Docker it is %q", s, r, r.Name(), nameByDocker(t, s))
		}
		if p, err := imageref.Parse(r.Pinned(digestA)); err == nil &&
			(p.Name() != r.Name() || p.Repository() != r.Repository() || p.Written != r.Written) {
			t.Fatalf("Parse(%q) = %+v, and pinned it is %+v", s, r, p)
		}
		if r.Short != readsShort(t, s) {
			t.Fatalf("Parse(%q) = %+v, which a node reads as short: %t", s, r, !r.Short)
		}
		if r.Host != strings.ToLower(r.Host) || r.Host == "" || r.Path == "" || strings.ContainsAny(r.Host, "/@") ||
			strings.ContainsAny(r.Path, ":@") {
			t.Fatalf("Parse(%q) = %+v", s, r)
		}
		if r.Tag == "" && r.Digest == "" || r.Digest != "" && !imageref.ValidDigest(r.Digest) {
			t.Fatalf("Parse(%q) = %+v: neither tag nor digest, or not a digest", s, r)
		}
		if r.Host != "registry:443" && strings.HasSuffix(r.Host, ".com:443") {
			t.Fatalf("Parse(%q) kept the default port: %+v", s, r)
		}
	})
}
