package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// objects are the fewest objects from which parametrize can make a chart.
const objects = `
Namespace/countersign-system: {}
ServiceAccount/countersign-manager: {metadata: {name: countersign-manager}}
Deployment/countersign-manager:
  metadata: {namespace: countersign-system, labels: {a: b}}
  spec:
    replicas: 3
    template:
      metadata: {labels: {a: b}, annotations: {a: b}}
      spec:
        nodeSelector: {a: b}
        topologySpreadConstraints: []
        priorityClassName: high
        terminationGracePeriodSeconds: 30
        containers:
        - name: manager
          image: countersign
          args: [--leader-elect, "--metrics-bind-address=:8443"]
          resources: {}
          ports:
          - {name: webhook, containerPort: 9443}
          - {name: metrics, containerPort: 8443}
          - {name: health, containerPort: 8081}
`

const values = `{shutdownDelay: 5s, logLevel: info, logFormat: json, uncoveredImages: Allow, shortNames: "", expiryWarning: 72h, forgetUnusedAfter: 720h}`

func TestParametrizeRejectsUnexpectedObjects(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string // in the objects
		values   string
		want     string
	}{
		"valid": {},
		"no Namespace": {
			old: "Namespace/countersign-system: {}", want: "config/default has no Namespace/countersign-system",
		},
		"no Deployment": {
			old: "Deployment/countersign-manager", new: "Deployment/another",
			want: "Deployment/countersign-manager spec.replicas",
		},
		"a field is gone": {
			old: "    replicas: 3\n", want: "spec.replicas: in config/ it is there: false, expected: true",
		},
		"a field is there already": {
			old: "nodeSelector:", new: "affinity: {}\n        nodeSelector:",
			want: "spec.affinity: in config/ it is there: true, expected: false",
		},
		"another container": {old: "name: manager", new: "name: another", want: "config/ has no manager there"},
		"no arguments": {
			old: "args: [--leader-elect, \"--metrics-bind-address=:8443\"]", new: "tty: true", want: "no arguments",
		},
		"no port of that name": {old: "name: health", new: "name: other", want: "config/ has no health there"},
		"metrics on another port": {
			old: "containerPort: 8443", new: "containerPort: 8444", want: "not on the container's port metrics",
		},
		"a flag is passed already": {
			old: "--leader-elect", new: "--expiry-warning=1h", want: "config/ passes --expiry-warning",
		},
		"too short a grace period": {
			old: "terminationGracePeriodSeconds: 30", new: "terminationGracePeriodSeconds: 24", want: "not 20 s longer",
		},
		"no labels": {old: "labels: {a: b}}\n  spec:", new: "x: {}}\n  spec:"},
		"the namespace in an unlisted field": {
			old: "high", new: "svc.countersign-system", want: "names countersign-system; list the field",
		},
		"no default for a flag": {values: "{shutdownDelay: 5s}", want: "no default for uncoveredImages"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(objects, c.old, c.new, 1)
			if c.old != "" && text == objects {
				t.Fatal("nothing was replaced")
			}
			if c.values == "" {
				c.values = values
			}
			// A copy in a field that no value sets must be replaced too.
			text = strings.Replace(text, "        - name: manager",
				"        - workingDir: high\n          name: manager", 1)
			if c.new == "svc.countersign-system" {
				text = strings.Replace(text, "workingDir: high", "workingDir: "+c.new, 1)
			}
			parsed := parse(t, text).(map[string]any)
			if spec, err := descend(parsed[deployment], podSpec()); err == nil {
				// as templates merges the component
				spec["dnsPolicy"] = guarded{".Values.hostNetwork.enabled", "ClusterFirstWithHostNet"}
			}
			_, err := parametrize(parsed, parse(t, c.values).(map[string]any))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestFill(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		values string
		want   string
		err    string
	}{
		"scalars": {
			text: "a: ${x}\nb:\n  c: ${y.z}\n", values: "{x: 3, y.z: text}", want: "a: 3\nb:\n  c: text\n",
		},
		"a map": {
			text: "b:\n  c: ${x}\n", values: "{x: {k: v, l: [1]}}", want: "b:\n  c:\n    k: v\n    l:\n    - 1\n",
		},
		"empty values": {text: "a: ${x}\nb: ${w}\n", values: `{x: "", w: []}`, want: "a: \"\"\nb: []\n"},
		"a placeholder without a value": {
			text: "a: ${x}\n", values: "{}", err: `placeholders without a value: ["x"], values without a placeholder: []`,
		},
		"a value without a placeholder": {
			text: "a: 1\n", values: "{x: 1}", err: `placeholders without a value: [], values without a placeholder: ["x"]`,
		},
		"a placeholder inside a text": {
			text: "a: b ${x}\n", values: "{x: 1}",
			err: `placeholders without a value: [], values without a placeholder: ["x"]`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := fill([]byte(c.text), parse(t, c.values).(map[string]any))
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRelease(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0a", 32)
	for name, c := range map[string]struct {
		version, image string
		want           release
		err            string
	}{
		"no image": {version: "0.1.0", want: release{"0.1.0", "countersign", "v0.1.0", ""}},
		"a tag": {
			version: "v0.1.0", image: "localhost:5000/a/b:v1", want: release{"0.1.0", "localhost:5000/a/b", "v1", ""},
		},
		"a digest": {
			version: "0.1.0-rc.1", image: "localhost:5000/a/b@" + digest,
			want: release{"0.1.0-rc.1", "localhost:5000/a/b", "", digest},
		},
		"both": {
			version: "0.1.0", image: "a.example/b:v1@" + digest, want: release{"0.1.0", "a.example/b", "v1", digest},
		},
		"neither":        {version: "0.1.0", image: "localhost:5000/a/b", err: "REPOSITORY:TAG"},
		"half a digest":  {version: "0.1.0", image: "a.example/b@sha256:00", err: "REPOSITORY:TAG"},
		"no version":     {err: `version "": give it as 0.1.0, and the image as REPOSITORY@sha256:DIGEST`},
		"half a version": {version: "0.1", err: `version "0.1"`},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := newRelease(c.version, c.image)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}
