package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// field is a field of an object that values set. The chart keeps all other fields as they are in
// config/.
type field struct {
	object string   // Kind/name
	path   []string // keys, and the names of elements of lists
	// value is the name of the value whose default is in config/: it replaces ${value} in
	// values.yaml. Empty: the field has no default in config/.
	value string
	// tree replaces the field.
	tree any
	// added marks a field that config/ must not have. Without it, config/ must have the field.
	added bool
}

const deployment = "Deployment/countersign-manager"

// podSpec returns the path of a field of the Pod template's spec.
func podSpec(rest ...string) []string {
	return append([]string{"spec", "template", "spec"}, rest...)
}

// container returns the path of a field of the container manager.
func container(rest ...string) []string {
	return append(podSpec("containers", "manager"), rest...)
}

// fields returns the fields of the Deployment and the ServiceAccount that values set.
func fields() []field {
	replaced := func(path []string, value string, tree any) field {
		return field{object: deployment, path: path, value: value, tree: tree}
	}
	added := func(path []string, tree any) field {
		return field{object: deployment, path: path, tree: tree, added: true}
	}
	return []field{
		replaced([]string{"spec", "replicas"}, "replicas", inline("{{ .Values.replicas }}")),
		replaced(container("image"), "", inline(`{{ include "countersign.image" . | quote }}`)),
		added(container("imagePullPolicy"), guarded{
			".Values.image.pullPolicy", inline("{{ .Values.image.pullPolicy }}"),
		}),
		replaced(container("resources"), "resources", block("toYaml .Values.resources")),
		added(podSpec("imagePullSecrets"), guarded{
			`include "countersign.pullSecrets" .`, block(`include "countersign.pullSecrets" . | trim`),
		}),
		replaced(podSpec("nodeSelector"), "nodeSelector",
			guarded{".Values.nodeSelector", block("toYaml .Values.nodeSelector")}),
		added(podSpec("tolerations"), guarded{".Values.tolerations", block("toYaml .Values.tolerations")}),
		added(podSpec("affinity"), guarded{".Values.affinity", block("toYaml .Values.affinity")}),
		replaced(podSpec("topologySpreadConstraints"), "topologySpreadConstraints",
			guarded{".Values.topologySpreadConstraints", block("toYaml .Values.topologySpreadConstraints")}),
		replaced(podSpec("priorityClassName"), "priorityClassName",
			guarded{".Values.priorityClassName", inline("{{ .Values.priorityClassName | quote }}")}),
		added([]string{"spec", "template", "metadata", "annotations", moreKey},
			guarded{".Values.podAnnotations", block("toYaml .Values.podAnnotations")}),
		added([]string{"spec", "template", "metadata", "labels", moreKey},
			guarded{`include "countersign.podLabels" .`, block(`include "countersign.podLabels" .`)}),
		added(container("env"), guarded{".Values.extraEnv", block("toYaml .Values.extraEnv")}),
		replaced(container("ports", "webhook", "containerPort"), "ports.webhook",
			inline("{{ int .Values.ports.webhook }}")),
		replaced(container("ports", "metrics", "containerPort"), "ports.metrics",
			inline("{{ int .Values.ports.metrics }}")),
		replaced(container("ports", "health", "containerPort"), "ports.health",
			inline("{{ int .Values.ports.health }}")),
		{object: "ServiceAccount/countersign-manager", path: []string{"metadata", "annotations"}, added: true,
			tree: guarded{".Values.serviceAccount.annotations", block("toYaml .Values.serviceAccount.annotations")}},
	}
}

// managerFlag is a flag of the manager that a value sets. The chart passes it only if the value is
// not the manager's default.
type managerFlag struct {
	name, value string
	list        bool
}

func managerFlags() []managerFlag {
	return []managerFlag{
		{name: "uncovered-images", value: "uncoveredImages"},
		{name: "short-names", value: "shortNames"},
		{name: "exempt-namespaces", value: "exemptNamespaces", list: true},
		{name: "workload-kinds", value: "workloadKinds", list: true},
		{name: "image-placeholders", value: "imagePlaceholders", list: true},
		{name: "shutdown-delay", value: "shutdownDelay"},
		{name: "expiry-warning", value: "expiryWarning"},
		{name: "forget-unused-after", value: "forgetUnusedAfter"},
		{name: "log-level", value: "logLevel"},
		{name: "log-format", value: "logFormat"},
	}
}

// argument returns the element of the container's args for the flag.
func (f managerFlag) argument(values map[string]any) (guarded, error) {
	value := ".Values." + f.value
	if f.list {
		return guarded{value, inline(fmt.Sprintf(`{{ printf "--%s=%%s" (join "," %s) | quote }}`, f.name, value))}, nil
	}
	standard, ok := values[f.value].(string)
	if !ok {
		return guarded{}, fmt.Errorf("values.yaml has no default for %s", f.value)
	}
	return guarded{
		fmt.Sprintf("ne %s %q", value, standard),
		inline(fmt.Sprintf(`{{ printf "--%s=%%s" %s | quote }}`, f.name, value)),
	}, nil
}

// setFlags appends the flags to the container's args.
func setFlags(objects, values, defaults map[string]any) error {
	manager, err := descend(objects[deployment], container())
	if err != nil {
		return fmt.Errorf("%s: %w", deployment, err)
	}
	args, ok := manager["args"].([]any)
	if !ok {
		return fmt.Errorf("%s: the container has no arguments in config/", deployment)
	}
	for _, f := range managerFlags() {
		if slices.ContainsFunc(args,
			func(a any) bool { s, ok := a.(string); return ok && strings.HasPrefix(s, "--"+f.name) }) {
			return fmt.Errorf("config/ passes --%s, which a value of the chart sets", f.name)
		}
		argument, err := f.argument(values)
		if err != nil {
			return err
		}
		args = append(args, argument)
	}
	if args, err = setPorts(args, defaults); err != nil {
		return err
	}
	manager["args"] = append(args, guarded{".Values.extraArgs", block("toYaml .Values.extraArgs")})
	return setGracePeriod(objects, values)
}

// afterDelay is the time in seconds that a replica needs to stop after --shutdown-delay.
const afterDelay = 20

// setGracePeriod makes the Pod's grace period depend on the shutdown delay. It is longer by as much
// as in config/.
func setGracePeriod(objects, values map[string]any) error {
	spec, err := descend(objects[deployment], podSpec())
	if err != nil {
		return fmt.Errorf("%s: %w", deployment, err)
	}
	period, _ := spec["terminationGracePeriodSeconds"].(float64)
	standard, _ := values["shutdownDelay"].(string)
	delay, err := time.ParseDuration(standard)
	if err != nil {
		return fmt.Errorf("the default of shutdownDelay: %w", err)
	}
	longer := int(period - delay.Seconds())
	if longer < afterDelay {
		return fmt.Errorf(
			"terminationGracePeriodSeconds is %v in config/, which is not %d s longer than the shutdown delay", period,
			afterDelay)
	}
	spec["terminationGracePeriodSeconds"] = inline(
		fmt.Sprintf(`{{ trimSuffix "s" .Values.shutdownDelay | int | add %d }}`, longer))
	return nil
}

// setFields replaces fields by their templates. It returns the replaced contents by the names of
// the values.
func setFields(objects map[string]any, fields []field) (defaults map[string]any, err error) {
	defaults = make(map[string]any)
	for _, f := range fields {
		where := f.object + " " + strings.Join(f.path, ".")
		parent, err := descend(objects[f.object], f.path[:len(f.path)-1])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where, err)
		}
		key := f.path[len(f.path)-1]
		found, ok := parent[key]
		if ok == f.added {
			return nil, fmt.Errorf("%s: in config/ it is there: %t, expected: %t; update the list of fields",
				where, ok, !f.added)
		}
		if ok && !isPlain(found) {
			return nil, fmt.Errorf("%s: a component changes it too", where)
		}
		parent[key] = f.tree
		if f.value != "" {
			defaults[f.value] = found
		}
	}
	return defaults, nil
}

// descend returns the map at a path of a tree. It does not descend into guarded parts.
func descend(tree any, path []string) (map[string]any, error) {
	for _, step := range path {
		var next any
		switch t := tree.(type) {
		case map[string]any:
			next = t[step]
		case []any:
			i := slices.IndexFunc(t, func(e any) bool { m, ok := e.(map[string]any); return ok && m["name"] == step })
			if i >= 0 {
				next = t[i]
			}
		}
		if next == nil {
			return nil, fmt.Errorf("config/ has no %s there", step)
		}
		tree = next
	}
	m, ok := tree.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("config/ has %T there, not a map", tree)
	}
	return m, nil
}
