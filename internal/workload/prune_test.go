package workload

import (
	"bytes"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/json"
)

// decodeBoth decodes an object with and without what is pruned, and returns both, with whether each
// was accepted.
func decodeBoth(k Kind, raw []byte) (whole, pruned any, wholeOK, prunedOK bool) {
	decode := func(raw []byte) (any, bool) {
		document := reflect.New(k.document)
		odd, err := json.UnmarshalStrict(raw, document.Interface(), json.DisallowDuplicateFields)
		return document.Elem().Interface(), err == nil && len(odd) == 0
	}
	whole, wholeOK = decode(raw)
	kept, err := k.parts.prune(slices.Clip(bytes.Clone(raw)))
	if err != nil {
		return whole, nil, false, false // too many to be read at all
	}
	pruned, prunedOK = decode(kept)
	return whole, pruned, wholeOK, prunedOK
}

// FuzzPrune says that pruning changes nothing of what is read, and nothing about what is refused.
func FuzzPrune(f *testing.F) {
	for _, raw := range []string{
		`{"metadata":{"name":"a","managedFields":[{"f":{}}],"ownerReferences":[{"controller":true,"uid":"1"}]},"spec":{"containers":[{"name":"a","image":"b","env":[{"name":"x","image":"y"}]}]}}`,
		`{"spec":{"containers":[{"image":"a"}],"containers":[{"image":"b"}]}}`,
		`{"spec":{"containers":[{"image":"a","image":"b"}]}}`, `{"sp\u0065c":{"containers":[{"image":"a"}]}}`,
		`{"spec":{"containers":[{"im\u0061ge":"a"}]}}`, `{"Spec":{"containers":[{"image":"a"}]}}`, `{"spec":null}`,
		`{"spec":[]}`, `{"spec":{"containers":{"image":"a"}}}`,
		`{"spec":{"volumes":[null,{"image":{"reference":"a","reference":"b"}},[{"image":"x"}]],"containers":[ { "image" : "a" } , null ]}}`,
		`{"x":tru,"spec":{"containers":[{"image":"a"}]}}`,
		`{"x":[},"spec":{"containers":[{"image":"a"}]}}`, `{"x":"\"{","spec":{"containers":[{"image":"a\\"}]}} `,
		`{"spec":{"jobTemplate":{"spec":{"template":{"spec":{"containers":[{"image":"a"}]}}}}}}`,
		`{"spec":{"metadata":{"spec":{"containers":{"spec":{"containers":[{"image":"a"}]}}}}}}`, `{"a":1,}`, `{"a":"\`,
		`{"a":01}`,
		`{}`, ``, `{"metadata":{"name":7}}`, `{"metadata":[{"name":"a"}]}`,
		"{\"spec\":{\"containers\":[{\"image\":\"\xff\"}]}}", `{"spec":{"containers":[{"image":"a"}]}}{}`,
	} {
		f.Add([]byte(raw))
	}
	for _, o := range objects(everything()) {
		f.Add(marshal(f, o))
	}
	kinds, err := Builtin().With([]string{
		"rollouts.v1alpha1.argoproj.io=spec.template", "odd.v1.example.com=spec.metadata.spec.containers",
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, k := range kinds {
			whole, pruned, wholeOK, prunedOK := decodeBoth(k, raw)
			if wholeOK != prunedOK {
				t.Fatalf("%s: accepted %t as a whole, %t pruned", k.Name, wholeOK, prunedOK)
			}
			if diff := cmp.Diff(whole, pruned, cmp.AllowUnexported(Kind{})); wholeOK && diff != "" {
				t.Fatalf("%s: (-whole +pruned):\n%s", k.Name, diff)
			}
		}
	})
}

// What is not decoded is not kept either, so that it costs nothing.
func TestPruneDropsTheRest(t *testing.T) {
	got, err := kind(t,
		"Pod").parts.prune(
		[]byte(
			`{"kind":"Pod","metadata":{"name":"a","labels":{"b":"c"}},"spec":{"nodeName":"n","containers":[{"image":"d","env":[]},{}],"volumes":[]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"metadata":{"name":"a"},"spec":{"containers":[{"image":"d"},{}],"volumes":[]}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A text that is short and would be decoded to much is refused before it is, and nothing is refused
// that could be read otherwise.
func TestThreatManyValuesAreNotDecoded(t *testing.T) {
	many := func(n int, value string) string { return "[" + strings.Repeat(value+",", n-1) + value + "]" }
	const most = 2 << 20 / len("{},")
	pod := kind(t, "Pod")
	for name, raw := range map[string]string{
		"containers":           `{"spec":{"containers":` + many(most, "{}") + `}}`,
		"null containers":      `{"spec":{"initContainers":` + many(most, "null") + `}}`,
		"containers of no use": `{"spec":{"containers":` + many(most, "0") + `}}`,
		"owners":               `{"metadata":{"ownerReferences":` + many(most, "{}") + `}}`,
		"volumes":              `{"spec":{"volumes":` + many(most, `{"image":{}}`) + `}}`,
		"a name":               `{"metadata":{"name":` + many(most, "0") + `}}`,
		"an image":             `{"spec":{"volumes":[{"image":{"":` + many(most, `{"":0}`) + `}}]}}`,
		"behind an escape":     `{"spec":{"\u0061":0,"containers":` + many(most, "{}") + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := pod.Read([]byte(raw))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), "values where images are looked for") {
				t.Fatalf("%v", err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > uint64(4*len(raw)) {
				t.Errorf("%d bytes for %d", took, len(raw))
			}
		})
	}
	// What nobody decodes may be as much as it likes, and the most that can be checked is.
	unread := `{"metadata":{"annotations":` + many(most, "{}") + `},"spec":{"containers":` +
		many(maxImages, `{"name":"a","image":"b","env":[1,2,3]}`) + `}}`
	if o, err := pod.Read([]byte(unread)); err != nil || len(o.Images) != maxImages {
		t.Errorf("%d images, %v", len(o.Images), err)
	}
}
