package workload

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/json"
)

// decodeBoth decodes an object with and without what is pruned, and returns both, with whether each was accepted.
func decodeBoth(k Kind, raw []byte) (whole, pruned any, wholeOK, prunedOK bool) {
	decode := func(raw []byte) (any, bool) {
		document := reflect.New(k.document)
		odd, err := json.UnmarshalStrict(raw, document.Interface(), json.DisallowDuplicateFields)
		return document.Elem().Interface(), err == nil && len(odd) == 0
	}
	whole, wholeOK = decode(raw)
	pruned, prunedOK = decode(k.parts.prune(slices.Clip(bytes.Clone(raw))))
	return whole, pruned, wholeOK, prunedOK
}

// FuzzPrune says that pruning changes nothing of what is read, and nothing about what is refused.
func FuzzPrune(f *testing.F) {
	for _, raw := range []string{
		`{"metadata":{"name":"a","managedFields":[{"f":{}}],"ownerReferences":[{"controller":true,"uid":"1"}]},"spec":{"containers":[{"name":"a","image":"b","env":[{"name":"x","image":"y"}]}]}}`,
		`{"spec":{"containers":[{"image":"a"}],"containers":[{"image":"b"}]}}`, `{"spec":{"containers":[{"image":"a","image":"b"}]}}`, `{"sp\u0065c":{"containers":[{"image":"a"}]}}`,
		`{"spec":{"containers":[{"im\u0061ge":"a"}]}}`, `{"Spec":{"containers":[{"image":"a"}]}}`, `{"spec":null}`, `{"spec":[]}`, `{"spec":{"containers":{"image":"a"}}}`,
		`{"spec":{"volumes":[null,{"image":{"reference":"a","reference":"b"}},[{"image":"x"}]],"containers":[ { "image" : "a" } , null ]}}`, `{"x":tru,"spec":{"containers":[{"image":"a"}]}}`,
		`{"x":[},"spec":{"containers":[{"image":"a"}]}}`, `{"x":"\"{","spec":{"containers":[{"image":"a\\"}]}} `, `{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"a"}]}}}}}}`,
		`{"spec":{"metadata":{"spec":{"containers":{"spec":{"containers":[{"image":"a"}]}}}}}}`, `{"a":1,}`, `{"a":"\`, `{"a":01}`,
		`{}`, ``, `{"metadata":{"name":7}}`, `{"metadata":[{"name":"a"}]}`, "{\"spec\":{\"containers\":[{\"image\":\"\xff\"}]}}", `{"spec":{"containers":[{"image":"a"}]}}{}`,
	} {
		f.Add([]byte(raw))
	}
	for _, o := range objects(everything()) {
		f.Add(marshal(f, o))
	}
	kinds, err := Builtin().With([]string{"rollouts.v1alpha1.argoproj.io=spec.template", "odd.v1.example.com=spec.metadata.spec.containers"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, k := range kinds {
			whole, pruned, wholeOK, prunedOK := decodeBoth(k, raw)
			if wholeOK != prunedOK {
				t.Fatalf("%s: accepted %t as a whole, %t pruned to %s", k.Name, wholeOK, prunedOK, k.parts.prune(raw))
			}
			if diff := cmp.Diff(whole, pruned, cmp.AllowUnexported(Kind{})); wholeOK && diff != "" {
				t.Fatalf("%s: (-whole +pruned):\n%s", k.Name, diff)
			}
		}
	})
}

// What is not decoded is not kept either, so that it costs nothing.
func TestPruneDropsTheRest(t *testing.T) {
	got := kind(t, "Pod").parts.prune([]byte(`{"kind":"Pod","metadata":{"name":"a","labels":{"b":"c"}},"spec":{"nodeName":"n","containers":[{"image":"d","env":[]},{}],"volumes":[]}}`))
	want := `{"metadata":{"name":"a"},"spec":{"containers":[{"image":"d"},{}],"volumes":[]}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
