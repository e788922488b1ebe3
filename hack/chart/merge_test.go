package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

func parse(t *testing.T, text string) any {
	t.Helper()
	var tree any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestMerge(t *testing.T) {
	for name, c := range map[string]struct {
		base, a, b string
		want       string // the template
		err        string
	}{
		"nothing changes": {base: "{x: 1}", a: "{x: 1}", b: "{x: 1}", want: "x: 1\n"},
		"a key is added": {
			base: "{x: 1}", a: "{x: 1, z: 2}", b: "{x: 1}", want: "x: 1\n{{- if .A }}\nz: 2\n{{- end }}\n",
		},
		"both add the same": {
			base: "{x: 1}", a: "{x: 1, z: [2]}", b: "{x: 1, z: [2]}",
			want: "x: 1\n{{- if or .A .B }}\nz:\n- 2\n{{- end }}\n",
		},
		"both add to a new list": {
			base: "{x: 1}", a: "{x: 1, z: [2]}", b: "{x: 1, z: [3]}",
			want: "x: 1\n{{- if or .A .B }}\nz:\n{{- if .B }}\n- 3\n{{- end }}\n{{- if .A }}\n- 2\n{{- end }}\n{{- " +
				"end }}\n",
		},
		"both add an element, partly the same": {
			base: "{x: []}", a: "{x: [{name: m, a: 1}]}", b: "{x: [{name: m, b: 1}]}",
			want: "x:\n{{- if or .A .B }}\n- name: m\n  {{- if .A }}\n  a: 1\n  {{- end }}\n  {{- if .B }}\n  b: 1\n " +
				" {{- end }}\n{{- end }}\n",
		},
		"both set a key to different values": {
			base: "{x: 1}", a: "{x: 1, z: 2}", b: "{x: 1, z: 3}", err: ".z: or .A .B set it to different values",
		},
		"a value is changed": {
			base: "{x: 1}", a: "{x: 2}", b: "{x: 1}", want: "{{- if .A }}\nx: 2\n{{- else }}\nx: 1\n{{- end }}\n",
		},
		"both change a value": {
			base: "{x: 1}", a: "{x: 2}", b: "{x: 3}",
			want: "{{- if .A }}\nx: 2\n{{- else if .B }}\nx: 3\n{{- else }}\nx: 1\n{{- end }}\n",
		},
		"a key is removed": {
			base: "{x: 1, z: 2}", a: "{x: 1}", b: "{x: 1, z: 2}", want: "x: 1\n{{- if not (.A) }}\nz: 2\n{{- end }}\n",
		},
		"in the middle of a list": {
			base: "{x: [1, 3]}", a: "{x: [1, 2, 3]}", b: "{x: [1, 3]}",
			want: "x:\n- 1\n{{- if .A }}\n- 2\n{{- end }}\n- 3\n",
		},
		"in an element of a list": {
			base: "{x: [{name: m, z: 1}]}", a: "{x: [{name: m, z: 1, zz: 2}]}", b: "{x: [{name: m, z: 1}]}",
			want: "x:\n- name: m\n  z: 1\n  {{- if .A }}\n  zz: 2\n  {{- end }}\n",
		},
		"duplicates in a list": {base: "{x: [1, 1]}", a: "{x: [1]}", b: "{x: [1, 1]}", err: ".x has 1 twice"},
		"braces are escaped": {
			base: `{x: "{{ $labels.w }}", zz: 1}`, a: `{x: "{{ $labels.w }}", zz: 2}`,
			b:    `{x: "{{ $labels.w }}", zz: 1}`,
			want: "x: '{{ \"{{\" }} $labels.w }}'\n{{- if .A }}\nzz: 2\n{{- else }}\nzz: 1\n{{- end }}\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tree, err := merge("", parse(t, c.base), []variant{{".A", parse(t, c.a)}, {".B", parse(t, c.b)}})
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("got %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			text, err := emit(tree.(map[string]any))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEmitRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		tree map[string]any
		want string
	}{
		"a condition in the first field of an element": {
			tree: map[string]any{"list": []any{map[string]any{"x": guarded{".A", 1}}}},
			want: "must not depend on a value",
		},
		"a choice in a list": {tree: map[string]any{"list": []any{choice{otherwise: 1}}}, want: "cannot be written"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := emit(c.tree); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
