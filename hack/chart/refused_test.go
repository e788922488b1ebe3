package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/flags"
)

func TestInvalidValuesAreRefused(t *testing.T) {
	for values, want := range map[string]string{
		"{replica: 3}":                                "replica",
		"{replicas: 0}":                               "replicas",
		"{replicas: three}":                           "replicas",
		"{image: {tags: v1}}":                         "tags",
		"{image: {digest: 'sha256:00'}}":              "image/digest",
		"{image: {repository: 'a b'}}":                "image/repository",
		"{image: {pullPolicy: never}}":                "image/pullPolicy",
		"{image: {tag: '', digest: ''}}":              "image.tag or image.digest must be set",
		"{imagePullSecrets: [p]}":                     "imagePullSecrets/0",
		"{resources: {limit: {}}}":                    "limit",
		"{nodeSelector: {a: 1}}":                      "nodeSelector/a",
		"{tolerations: [{operator: exists}]}":         "tolerations/0/operator",
		"{affinity: {nodeaffinity: {}}}":              "nodeaffinity",
		"{topologySpreadConstraints: [{maxSkew: 1}]}": "topologyKey",
		"{priorityClassName: 1}":                      "priorityClassName",
		"{podAnnotations: {a: true}}":                 "podAnnotations/a",
		"{podLabels: {app.kubernetes.io/name: x}}": "podLabels: app.kubernetes.io/name is a label " +
			"that the chart sets itself",
		"{uncoveredImages: deny}":                            "uncoveredImages",
		"{shortNames: dockerio}":                             "shortNames",
		"{exemptNamespaces: [A]}":                            "exemptNamespaces/0",
		"{exemptNamespaces: a}":                              "exemptNamespaces",
		"{workloadKinds: [rollouts]}":                        "workloadKinds/0",
		"{imagePlaceholders: [auto]}":                        "imagePlaceholders/0",
		"{imagePlaceholders: [example.com/app=inject]}":      "imagePlaceholders/0",
		"{imagePlaceholders: ['a,b=inject']}":                "imagePlaceholders/0",
		"{imagePlaceholders: ['a@b=inject']}":                "imagePlaceholders/0",
		"{shutdownDelay: 61s}":                               "shutdownDelay",
		"{shutdownDelay: 1m}":                                "shutdownDelay",
		"{shutdownDelay: 5}":                                 "shutdownDelay",
		"{expiryWarning: 3d}":                                "expiryWarning",
		"{forgetUnusedAfter: never}":                         "forgetUnusedAfter",
		"{crds: {install: 'yes'}}":                           "crds/install",
		"{crds: {Keep: true}}":                               "Keep",
		"{certManager: {enable: true}}":                      "enable",
		"{openshift: {enabled: 1}}":                          "openshift/enabled",
		"{prometheus: true}":                                 "prometheus",
		"{networkPolicy: {enabled: null, extra: 1}}":         "extra",
		"{pullSecrets: {enabled: 'true'}}":                   "pullSecrets/enabled",
		"{replicas: 26}":                                     "replicas",
		"{image: {repository: 'registry.example.com:5000'}}": "image/repository",
		"{expiryWarning: 8761h}":                             "expiryWarning",
		"{forgetUnusedAfter: 23h}":                           "forgetUnusedAfter",
		"{certManager: {enabled: true}, openshift: {enabled: true}}": "certManager.enabled and openshift.enabled " +
			"each provide a serving certificate",
	} {
		t.Run(values, func(t *testing.T) {
			_, err := theBed(t).template(t.Context(), values)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
			bySchema := !strings.Contains(want, ".")
			if err != nil && bySchema && !strings.Contains(err.Error(), "don't meet the specifications of the schema") {
				t.Errorf("got %v, want a refusal by the schema", err)
			}
		})
	}
}

// TestNullValues checks every value set to null, which makes Helm remove the default. The chart
// either refuses it, or renders the same as with an empty value.
func TestNullValues(t *testing.T) {
	empty := map[string]string{ // values that may be null, with their empty form
		"image.tag": "''", "image.digest": "''", "image.pullPolicy": "''", "imagePullSecrets": "[]",
		"resources":    "{limits: null, requests: null}",
		"nodeSelector": "{kubernetes.io/os: null}", "tolerations": "[]", "affinity": "{}",
		"topologySpreadConstraints": "[]", "priorityClassName": "''",
		"podAnnotations": "{}", "podLabels": "{}", "exemptNamespaces": "[]", "workloadKinds": "[]",
		"imagePlaceholders": "[]",
		"commonLabels":      "{}", "extraEnv": "[]", "extraArgs": "[]", "updateStrategy": "{}", "dnsPolicy": "''",
		"serviceAccount.annotations": "{}",
		"prometheus.labels":          "{}", "prometheus.annotations": "{}", "prometheus.interval": "''",
		"networkPolicy.ingressFrom": "[]",
	}
	as := func(name, value string) string {
		if group, inner, ok := strings.Cut(name, "."); ok {
			return fmt.Sprintf("{%s: {%s: %s}}", group, inner, value)
		}
		return fmt.Sprintf("{%s: %s}", name, value)
	}
	for _, v := range documented(t) {
		t.Run(v.name, func(t *testing.T) {
			got, err := theBed(t).template(t.Context(), as(v.name, "null"))
			same, ok := empty[v.name]
			if !ok {
				inner := v.name[strings.LastIndex(v.name, ".")+1:]
				if err == nil || !strings.Contains(err.Error(), "missing property '"+inner+"'") {
					t.Errorf("got %v, want an error with %s", err, inner)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			found := differences(rendered(t, as(v.name, same)), got)
			delete(found, manager+"resources") // null or {}
			if len(found) > 0 {
				t.Errorf("got other objects with null than with %s: %v", same, found)
			}
		})
	}
}

// TestManagerAcceptsLimitsOfSchema checks that the manager accepts the lowest and highest values
// that the schema allows.
func TestManagerAcceptsLimitsOfSchema(t *testing.T) {
	for _, set := range []string{
		"{expiryWarning: '0', forgetUnusedAfter: '0', shutdownDelay: 0s}",
		"{expiryWarning: 1h, forgetUnusedAfter: 24h, shutdownDelay: 60s}",
		"{expiryWarning: 8760h, forgetUnusedAfter: 999999h, shutdownDelay: 59s}",
	} {
		container, err := descend(rendered(t, set)[deployment], container())
		if err != nil {
			t.Fatal(err)
		}
		var args []string
		for _, a := range container["args"].([]any) {
			args = append(args, a.(string))
		}
		if len(args) != 5 {
			t.Errorf("%s: got arguments %q, want five", set, args)
		}
		if _, err := flags.Parse(args); err != nil {
			t.Errorf("%s: got %v from the manager, want no error", set, err)
		}
	}
}

// TestNotIntoDefault checks that the chart refuses the namespace default, which Helm uses if none
// is given. The release's namespace is exempt, so the gate would not protect it.
func TestNotIntoDefault(t *testing.T) {
	_, err := theBed(t).template(t.Context(), "{}", "--namespace", "default")
	if err == nil || !strings.Contains(err.Error(), "--namespace countersign-system") {
		t.Errorf("got %v, want an error that recommends a namespace", err)
	}
}

// TestReplicasFitTheQuota checks that the quota allows twice the highest number of replicas, which
// is reached while a rollout replaces all of them.
func TestReplicasFitTheQuota(t *testing.T) {
	var s schema
	if err := json.Unmarshal(theBed(t).files["values.schema.json"], &s); err != nil {
		t.Fatal(err)
	}
	hard, err := descend(rendered(t, "{}")["ResourceQuota/countersign-critical-pods"], []string{"spec", "hard"})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := strconv.Atoi(hard["pods"].(string))
	if most := s.Properties["replicas"].Maximum; err != nil || most == 0 || 2*most > pods {
		t.Errorf("got a quota of %v Pods for up to %d replicas, want twice as many", hard["pods"], most)
	}
}
