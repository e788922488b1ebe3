package v1alpha1_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/internal/imageref"
)

// The API server and the operator accept the same patterns. A pattern that only the API server
// accepts would make a policy that denies its scope. A pattern that only the operator accepts could
// not be used.
func TestPatternRulesAgreeWithTheParser(t *testing.T) {
	patterns := map[string]bool{ // whether it is a pattern
		"nginx":                            true,
		"nginx*":                           true,
		"acme/app":                         true,
		"acme/**":                          true,
		"docker.io/**":                     true,
		"index.docker.io/library/nginx":    true,
		"Registry.Example.com/acme/**":     true,
		"registry.example.com/**/app":      true,
		"registry.example.com/*/app-*":     true,
		"registry.example.com:443/acme/**": true,
		"registry.example.com:05000/acme":  true,
		"registry:5000/acme/app":           true,
		"localhost/app":                    true,
		"localhost:5000/app":               true,
		"localhost":                        true,
		"localhost/":                       false,
		"*/**":                             true,
		"*/acme/*":                         true,
		"*.example.com/app":                true,
		"10.0.0.1:5000/app":                true,
		"[::1]:5000/app":                   true,
		"[2001:db8::1]/acme/**":            true,
		"a__b/c--d/e_f.g":                  true,
		"*":                                false,
		"**":                               false,
		"**/app":                           false,
		"**.example.com/app":               false,
		"*:5000/app":                       false,
		"Acme/app":                         false,
		"LOCALHOST/app":                    false,
		// a runtime reads it as a repository of docker.io, and its author means a registry
		"registry.example.com":             false,
		"registry.example.com/":            false,
		"/acme/app":                        false,
		"acme//app":                        false,
		"acme/app:v1":                      false,
		"nginx:v1":                         false,
		"nginx:*":                          false,
		"acme/app@sha256:*":                false,
		"acme/App":                         false,
		"acme/app**":                       false,
		"acme/***":                         false,
		"acme/.app":                        false,
		"acme/app.":                        false,
		"acme/a..b":                        false,
		"acme/a___b":                       false,
		"acme/../app":                      false,
		"acme/app name":                    false,
		"acme/app\n":                       false,
		"":                                 false,
		"acme/äpp":                         false,
		"https://registry.example.com/app": false,
		"registry.example.com:0/app":       false,
		"registry.example.com:65536/app":   false,
		"registry.example.com:100000/app":  false,
		"registry.example.com:*/app":       false,
		"registry_1.example.com/app":       false,
		"-registry.example.com/app":        false,
		"registry..example.com/app":        false,
		"[1:2:3:4:5:6:7::]/app":            true,
		"[1:2:3:4:5:6:7::8]/app":           false,
		"[::ffff:10.0.0.1]/app":            false,
		"[::ffff:a00:1]/app":               false,
		"[0:0:0:0:0:FFFF:a00:1]/app":       false,
		"[0:0:0:0:0:ffff::]/app":           false,
		"[::1%eth0]/app":                   false,
		"[::1/app":                         false,
		"[example.com]/app":                false,
		"sha256:5000/app":                  false,
	}
	for pattern, want := range patterns {
		if _, err := imageref.ParsePattern(pattern); (err == nil) != want {
			t.Errorf("%q: got %v from the parser, want accepted: %t", pattern, err, want)
		}
	}
	texts := slices.Collect(maps.Keys(patterns))
	texts = append(texts, randomTexts(2000, 7, "", "", []string{
		"a", "app", "0", "A", "*", "**", "/", "/", "/", ".", "-", "_", "__", ":", ":5000", "@", "[", "]", "::1",
		"[::1]",
		"localhost", "docker.io", "example.com", "library", " ",
	})...)
	texts = append(texts,
		randomTexts(2000, 12, "[", "]/app",
			[]string{"0:", "0:", "0:", "0000:", "ffff:", "FFFF:", "a:", ":", ":0", ":1", "Fe80", "00001"})...)
	slices.Sort(texts)
	texts = slices.Compact(texts) // the API server refuses equal entries
	c := server(t)
	for chunk := range slices.Chunk(texts, 256) {
		refused := refusedPatterns(t, c, chunk)
		for _, pattern := range chunk {
			_, err := imageref.ParsePattern(pattern)
			messages := refused[pattern]
			if pattern == "localhost" && len(messages) == 1 && err == nil {
				continue // Older objects may have it. It still means docker.io/library/localhost and not a registry.
			}
			if len(messages) > 0 != (err != nil) {
				t.Errorf("%q: got %q from the API server and %v from the parser, want the same result", pattern,
					messages, err)
			}
			if len(messages) > 1 {
				t.Errorf("%q: got %q from the API server, want the first fault only", pattern, messages)
			}
		}
	}
}

// randomTexts returns n different texts, each of at most most pieces between before and after. Each
// call returns the same texts.
func randomTexts(n, most int, before, after string, pieces []string) []string {
	random := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{"": true}
	texts := make([]string, 0, n)
	for len(texts) < n {
		text := before
		for range 1 + random.IntN(most) {
			text += pieces[random.IntN(len(pieces))]
		}
		if text += after; !seen[text] {
			seen[text] = true
			texts = append(texts, text)
		}
	}
	return texts
}

// refusedPatterns returns the messages of the patterns that the API server refuses.
func refusedPatterns(t *testing.T, c client.Client, patterns []string) map[string][]string {
	t.Helper()
	s := policySpec()
	s.set("images", list(len(patterns), func(i int) any { return patterns[i] }))
	err := submit(t, c, "ImagePolicy", s)
	if err == nil {
		return nil
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		t.Fatal(err)
	}
	field := regexp.MustCompile(`^spec\.images\[([0-9]+)\]$`)
	refused := map[string][]string{}
	for _, cause := range status.Status().Details.Causes {
		match := field.FindStringSubmatch(cause.Field)
		if match == nil {
			t.Fatalf("got a message about %s, want one about a pattern: %s", cause.Field, cause.Message)
		}
		i, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		refused[patterns[i]] = append(refused[patterns[i]], cause.Message)
	}
	return refused
}

// For a pattern with several faults, the message names the one to correct first. The pattern that a
// message advises is valid.
func TestPatternAdvice(t *testing.T) {
	c := server(t)
	for pattern, want := range map[string]string{
		"https://Registry.example.com:5000/App:v1": "drop https://",
		"http://registry.example.com":              "drop https://",
		" https://registry.example.com":            "no white space",
		"registry.example.com:5000":                "write registry.example.com:5000/** for",
		"registry.example.com:5000/":               "write registry.example.com:5000/** for",
		"registry:5000/":                           "write registry:5000/** for",
		"localhost:5000":                           "write localhost:5000/** for",
		"localhost":                                "write localhost/** for",
		"localhost/":                               "write localhost/** for",
		"*":                                        "write '*/**'",
		"10.0.0.1:5000":                            "write 10.0.0.1:5000/** for",
		"[::1]:5000":                               "write [::1]:5000/** for",
		"[::1]":                                    "write [::1]/** for",
		"*.example.com":                            "write *.example.com/** for",
		"docker.io":                                "write docker.io/** for",
		"docker.io/":                               "write docker.io/** for",
		"redis:7":                                  "cannot name a tag",
		"registry:5000":                            "after a registry with its port write '/**'",
		"example.com/App@sha256:00":                "cannot name a digest",
		"example.com/App/":                         "or end it with '/**'",
		"example.com/acme/App":                     "lower-case",
		"**.example.com/App":                       "cannot stand for the registry host",
	} {
		messages := refusedPatterns(t, c, []string{pattern})[pattern]
		if len(messages) != 1 || !strings.Contains(messages[0], want) {
			t.Errorf("%q: got %q, want one message with %q", pattern, messages, want)
		}
		if _, advice, ok := strings.Cut(want, "write "); ok && strings.HasSuffix(advice, " for") {
			if _, err := imageref.ParsePattern(strings.TrimSuffix(advice, " for")); err != nil {
				t.Errorf("the advice %q: got %v from the parser, want a valid pattern", advice, err)
			}
		}
	}
}
