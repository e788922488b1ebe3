package tuf

import (
	"fmt"
	"testing"

	"github.com/countersign-dev/countersign/internal/tufrepo"
)

// No template has a path that is of two images.
func TestThreatTUFPathOfTwoImages(t *testing.T) {
	parts := []string{"", "a", "-", ".", "_", ":", "/", "a/b", "@", "img-"}
	repositories := []string{
		"r.io/a", "r.io/a/a", "r.io/a-a", "r.io/a.a", "r.io/a_a", "r.io/aa", "r.io:1/a", "r.io/a/1",
	}
	tags := []string{"a", "1", "a-a", "a.a", "a_a", "aa", "-a", "img-a", "b"}
	accepted := 0
	for _, before := range parts {
		for _, between := range parts {
			for _, after := range parts {
				for _, order := range [][2]string{
					{repositoryVariable, tagVariable}, {tagVariable, repositoryVariable},
				} {
					l, err := newLayout(before + order[0] + between + order[1] + after)
					if err != nil {
						continue
					}
					accepted++
					images := map[string]string{}
					for _, repository := range repositories {
						for _, tag := range tags {
							path, image := l.path(repository, tag), repository+":"+tag
							if other, taken := images[path]; taken && other != image {
								t.Fatalf("%s: %s is the path of %s and of %s", l, path, other, image)
							}
							images[path] = image
						}
					}
				}
			}
		}
	}
	if accepted < 100 {
		t.Errorf("got %d templates accepted, want at least 100", accepted)
	}
}

// A path that is read backwards gives the tag that it was made of, and no other path a tag.
func TestPathsBackwards(t *testing.T) {
	for _, template := range []string{"", "{tag}", "images/{repository}/{tag}.img", "{tag}/{repository}"} {
		l, err := newLayout(template)
		if err != nil {
			t.Fatal(err)
		}
		of := l.family("registry.example.com:5000/acme/app")
		for i, tag := range []string{"v1", "latest", "1.0-rc_2"} {
			path := l.path("registry.example.com:5000/acme/app", tag)
			if got, ok := tagIn(of, path); !ok || got != tag {
				t.Errorf("%q: got tag %q, %t of %q, want %q", template, got, ok, path, tag)
			}
			if want := of.Prefix + tag + of.Suffix; path != want {
				t.Errorf("%q: got path %d %q, want %q", template, i, path, want)
			}
		}
		for _, between := range []string{"", "a b", "a/b"} {
			other := of.Prefix + between + of.Suffix
			if got, ok := tagIn(of, other); ok {
				t.Errorf("%q: got tag %q of %q, want none", template, got, other)
			}
		}
	}
	if _, ok := tagIn(tufrepo.Family{Prefix: "aa", Suffix: "aa"}, "aaa"); ok {
		t.Error("got a tag of a path in which prefix and suffix overlap, want none")
	}
}

func TestTemplatesThatAreRefused(t *testing.T) {
	for _, template := range []string{
		"{repository}", "{repository}{tag}", "{repository}-{tag}", "{tag}.{repository}", "{tag}{tag}",
		"{repository}:{tag}:{repository}", "{repository}:{tag}{arch}", "/{repository}:{tag}", "a//{tag}", "../{tag}",
		"{repository}/../{tag}",
	} {
		if l, err := newLayout(template); err == nil {
			t.Errorf("got %q accepted as %q, want an error", template, l)
		}
	}
	for _, server := range []string{
		"https://tuf.example.com/x{repository}", "https://tuf.example.com/{repository}x", "https://{repository}",
		"https://tuf.example.com/{repository}/{repository}",
	} {
		if l, err := newLocation(server); err == nil {
			t.Errorf("got %q accepted as %+v, want an error", server, l)
		}
	}
	l, err := newLocation("https://tuf.example.com/x/{repository}/metadata/")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%s%s", l.server, l.folder("r.example.com:5000/a/b"))
	if want := "https://tuf.example.com/x/r.example.com:5000/a/b/metadata"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
