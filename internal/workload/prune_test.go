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

// decodeBoth decodes an object whole and pruned. It returns both results, and whether the decoder
// accepted each.
func decodeBoth(k Kind, raw []byte) (whole, pruned any, wholeOK, prunedOK bool) {
	decode := func(raw []byte) (any, bool) {
		document := reflect.New(k.document)
		odd, err := json.UnmarshalStrict(raw, document.Interface(), json.DisallowDuplicateFields)
		return document.Elem().Interface(), err == nil && len(odd) == 0
	}
	whole, wholeOK = decode(raw)
	kept, err := k.parts.prune(slices.Clip(bytes.Clone(raw)))
	if err != nil {
		return whole, nil, false, false // too many values
	}
	pruned, prunedOK = decode(kept)
	return whole, pruned, wholeOK, prunedOK
}

// FuzzPrune checks that pruning changes neither the decoded value nor whether the decoder accepts
// it.
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
				t.Fatalf("%s: got accepted %t when pruned, want %t as for the whole", k.Name, prunedOK, wholeOK)
			}
			if diff := cmp.Diff(whole, pruned, cmp.AllowUnexported(Kind{})); wholeOK && diff != "" {
				t.Fatalf("%s: (-whole +pruned):\n%s", k.Name, diff)
			}
		}
	})
}

// Members that are not decoded are dropped, so that they cost no memory.
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

// A short text with many values is refused before it is decoded. An object with as many images as
// allowed is read, and members that are not decoded do not count.
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
				t.Fatalf("got %v, want an error about too many values", err)
			}
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > uint64(4*len(raw)) {
				t.Errorf("got %d bytes allocated for %d, want at most four times as many", allocated, len(raw))
			}
		})
	}
	// The annotations are not decoded, so their number does not matter.
	largest := `{"metadata":{"annotations":` + many(most, "{}") + `},"spec":{"containers":` +
		many(maxImages, `{"name":"a","image":"b","env":[1,2,3]}`) + `}}`
	if o, err := pod.Read([]byte(largest)); err != nil || len(o.Images) != maxImages {
		t.Errorf("got %d images, %v, want %d", len(o.Images), err, maxImages)
	}
}
