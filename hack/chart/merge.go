package main

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// variant is a tree that replaces the base while a condition holds.
type variant struct {
	condition string
	value     any // absent{}: the variant removes the base
}

// absent is the value of an entry that does not exist.
type absent struct{}

// merge returns a tree that renders base if no condition holds, and a variant if its condition
// holds. Several variants may change a part to the same value; different new values for a part that
// base lacks are an error. merge does not check what several variants yield together: a test does.
func merge(path string, base any, variants []variant) (any, error) {
	changed := slices.DeleteFunc(slices.Clone(variants),
		func(v variant) bool { return reflect.DeepEqual(v.value, base) })
	if len(changed) == 0 {
		return base, nil
	}
	if _, ok := base.(absent); ok {
		return mergeNew(path, changed)
	}
	removed := slices.ContainsFunc(changed, func(v variant) bool { return v.value == absent{} })
	if removed {
		kept := slices.DeleteFunc(slices.Clone(variants), func(v variant) bool { return v.value == absent{} })
		gone := slices.DeleteFunc(changed, func(v variant) bool { return v.value != absent{} })
		value, err := merge(path, base, kept)
		return guarded{condition: "not (" + either(gone) + ")", value: value}, err
	}
	if m, ok := base.(map[string]any); ok && all[map[string]any](changed) {
		return mergeMaps(path, m, changed)
	}
	if l, ok := base.([]any); ok && all[[]any](changed) {
		return mergeLists(path, l, changed)
	}
	c := choice{otherwise: base}
	for _, v := range changed {
		c.branches = append(c.branches, guarded(v))
	}
	return c, nil
}

// mergeNew is merge for a base that is absent.
func mergeNew(path string, variants []variant) (any, error) {
	first := variants[0].value
	same := !slices.ContainsFunc(variants, func(v variant) bool { return !reflect.DeepEqual(v.value, first) })
	switch first := first.(type) {
	case map[string]any:
		if all[map[string]any](variants) {
			value, err := mergeMaps(path, shared(first, variants), variants)
			return guarded{condition: either(variants), value: value}, err
		}
	case []any:
		if all[[]any](variants) && !same {
			value, err := mergeLists(path, nil, variants)
			return guarded{condition: either(variants), value: value}, err
		}
	}
	if !same {
		return nil, fmt.Errorf("%s: %s set it to different values", path, either(variants))
	}
	return guarded{condition: either(variants), value: first}, nil
}

// shared returns the entries of first that all variants have with the same value.
func shared(first map[string]any, variants []variant) map[string]any {
	entries := maps.Clone(first)
	maps.DeleteFunc(entries, func(key string, value any) bool {
		return slices.ContainsFunc(variants, func(v variant) bool {
			return !reflect.DeepEqual(v.value.(map[string]any)[key], value)
		})
	})
	return entries
}

// all reports whether the values of all variants have type T.
func all[T any](variants []variant) bool {
	return !slices.ContainsFunc(variants, func(v variant) bool { _, ok := v.value.(T); return !ok })
}

// either returns the condition that at least one of the variants' conditions holds.
func either(variants []variant) string {
	if len(variants) == 1 {
		return variants[0].condition
	}
	conditions := make([]string, len(variants))
	for i, v := range variants {
		conditions[i] = v.condition
	}
	return "or " + strings.Join(conditions, " ")
}

func mergeMaps(path string, base map[string]any, variants []variant) (any, error) {
	keys := maps.Clone(base)
	if keys == nil {
		keys = make(map[string]any)
	}
	for _, v := range variants {
		maps.Copy(keys, v.value.(map[string]any))
	}
	merged := make(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		entry := func(m map[string]any) any {
			if value, ok := m[key]; ok {
				return value
			}
			return absent{}
		}
		var entries []variant
		for _, v := range variants {
			entries = append(entries, variant{v.condition, entry(v.value.(map[string]any))})
		}
		if _, ok := base[key]; !ok {
			entries = slices.DeleteFunc(entries, func(v variant) bool { return v.value == absent{} })
		}
		value, err := merge(path+"."+key, entry(base), entries)
		if err != nil {
			return nil, err
		}
		merged[key] = value
	}
	return merged, nil
}

// mergeLists keeps the order of base, and inserts the elements that a variant adds at their
// position in the variant.
func mergeLists(path string, base []any, variants []variant) (any, error) {
	elements, order, err := byIdentity(path, base)
	if err != nil {
		return nil, err
	}
	var keyed []variant
	for _, v := range variants {
		of, ids, err := byIdentity(path, v.value.([]any))
		if err != nil {
			return nil, err
		}
		keyed = append(keyed, variant{v.condition, of})
		at := 0
		for _, id := range ids {
			if i := slices.Index(order, id); i >= 0 {
				at = i + 1
				continue
			}
			order = slices.Insert(order, at, id)
			at++
		}
	}
	merged, err := mergeMaps(path, elements, keyed)
	if err != nil {
		return nil, err
	}
	list := make([]any, len(order))
	for i, id := range order {
		list[i] = merged.(map[string]any)[id]
	}
	return list, nil
}

// byIdentity returns the elements of a list by identity, and the identities in the order of the
// list.
func byIdentity(path string, list []any) (elements map[string]any, order []string, err error) {
	elements = make(map[string]any)
	for _, element := range list {
		id := identity(element)
		if _, ok := elements[id]; ok {
			return nil, nil, fmt.Errorf("%s has %s twice", path, id)
		}
		elements[id] = element
		order = append(order, id)
	}
	return elements, order, nil
}

// identity returns a key that distinguishes an element of a list from the others.
func identity(element any) string {
	if m, ok := element.(map[string]any); ok {
		for _, key := range []string{"mountPath", "name", "port"} {
			if id, ok := m[key].(string); ok {
				return key + "=" + id
			}
		}
	}
	return fmt.Sprint(element)
}
