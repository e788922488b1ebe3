package trust_test

import (
	"slices"
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

// All subjects of a record follow each other, and the record comes first of them.
func TestSubjectsOfARecordFollowEachOther(t *testing.T) {
	all := []trust.Subject{
		{Repository: "a/shared", Tag: "v1", Shared: true}, {Repository: "b/own"}, {Repository: "b/own", Tag: "v1"},
		{Shared: true}, {Repository: "a/own"}, {Repository: "c/shared", Shared: true},
	}
	slices.SortFunc(all, trust.Subject.Compare)
	var records []string
	for _, s := range all {
		records = append(records, s.InRepository().String())
	}
	want := []string{"a/own", "b/own", "b/own", "all repositories", "all repositories", "all repositories"}
	if diff := cmp.Diff(want, records); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if first := (trust.Subject{Shared: true}); all[3] != first {
		t.Errorf("got %+v as the first of the shared ones, want the record", all[3])
	}
}
