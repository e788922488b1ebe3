package trust_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/countersign-dev/countersign/internal/imageref"
	"github.com/countersign-dev/countersign/internal/trust"
)

func TestSignedRepository(t *testing.T) {
	remaps := trust.Remaps{
		{Prefix: "mirror.example.com/", SignedPrefix: "docker.io/"},
		{Prefix: "mirror.example.com/acme/", SignedPrefix: "registry.example.com/acme/"},
		{Prefix: "mirror.example.com:443/other/", SignedPrefix: "other.example.com:443/"},
		{Prefix: "docker.io/acme/", SignedPrefix: "registry.example.com/hub/"},
	}
	got := map[string]string{}
	want := map[string]string{
		"mirror.example.com/library/nginx": "docker.io/library/nginx",
		"mirror.example.com/acme/app":      "registry.example.com/acme/app",
		"mirror.example.com.evil/app":      "mirror.example.com.evil/app",
		"registry.example.com/app":         "registry.example.com/app",
		// A prefix is compared with what is written, and else with the name without the default
		// port and capitals.
		"registry.example.com:443/app":          "registry.example.com:443/app",
		"Registry.example.com/app":              "Registry.example.com/app",
		"mirror.example.com:443/other/app":      "other.example.com:443/app",
		"mirror.example.com/other/app":          "docker.io/other/app",
		"mirror.example.com:443/library/nginx":  "docker.io/library/nginx",
		"Mirror.example.com/acme/app":           "registry.example.com/acme/app",
		"mirror.example.com:5000/library/nginx": "mirror.example.com:5000/library/nginx",
		"docker.io/acme/app":                    "registry.example.com/hub/app",
		"index.docker.io/acme/app":              "registry.example.com/hub/app",
		"acme/app":                              "registry.example.com/hub/app",
	}
	for repository := range want {
		ref, err := imageref.Parse(repository)
		if err != nil {
			t.Fatal(err)
		}
		got[repository] = remaps.Signed(ref)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
