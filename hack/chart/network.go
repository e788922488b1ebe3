package main

import (
	"errors"
	"fmt"
	"slices"
)

// setPorts adds arguments that make the manager listen on the ports of the container.
func setPorts(args []any, defaults map[string]any) ([]any, error) {
	const metrics = "--metrics-bind-address=:"
	i := slices.Index(args, any(fmt.Sprintf("%s%v", metrics, defaults["ports.metrics"])))
	if i < 0 {
		return nil, errors.New("config/ passes a metrics address that is not on the container's port metrics")
	}
	args[i] = inline(`"` + metrics + `{{ int .Values.ports.metrics }}"`)
	for _, port := range []struct{ value, argument string }{
		{"ports.webhook", "--webhook-port="}, {"ports.health", "--health-probe-bind-address=:"},
	} {
		args = append(args, guarded{
			fmt.Sprintf("ne (int .Values.%s) %v", port.value, defaults[port.value]),
			inline(fmt.Sprintf(`"%s{{ int .Values.%s }}"`, port.argument, port.value)),
		})
	}
	return args, nil
}

// setNetwork lets values override the fields that the component host-network changes.
func setNetwork(objects map[string]any) error {
	spec, err := descend(objects[deployment], podSpec())
	if err != nil {
		return err
	}
	dns, ok := spec["dnsPolicy"].(guarded)
	if !ok {
		return errors.New("dnsPolicy must be set by the component host-network only")
	}
	spec["dnsPolicy"] = guarded{
		"or .Values.dnsPolicy " + dns.condition, inline(fmt.Sprintf("{{ .Values.dnsPolicy | default %q }}", dns.value)),
	}
	outer, err := descend(objects[deployment], []string{"spec"})
	if err != nil {
		return err
	}
	outer["strategy"] = choice{
		[]guarded{{".Values.updateStrategy", block("toYaml .Values.updateStrategy")}}, outer["strategy"],
	}
	return nil
}

// setPeers lets a value set the peers of the NetworkPolicy's ingress rule.
func setPeers(policy any) error {
	spec, err := descend(policy, []string{"spec"})
	if err != nil {
		return err
	}
	rules, _ := spec["ingress"].([]any)
	if len(rules) != 1 {
		return errors.New("the NetworkPolicy must have exactly one ingress rule")
	}
	rules[0].(map[string]any)["from"] = guarded{
		".Values.networkPolicy.ingressFrom", block("toYaml .Values.networkPolicy.ingressFrom"),
	}
	return nil
}

// setMonitoring lets the values under prometheus set fields of ServiceMonitor and PrometheusRule.
func setMonitoring(kind string, object map[string]any) error {
	metadata, err := descend(object, []string{"metadata"})
	if err != nil {
		return err
	}
	if _, ok := metadata["annotations"]; ok {
		return errors.New("config/ sets annotations already")
	}
	metadata["annotations"] = guarded{".Values.prometheus.annotations", block("toYaml .Values.prometheus.annotations")}
	metadata["labels"].(map[string]any)[moreKey] = block(`include "countersign.monitoringLabels" .`)
	if kind != "ServiceMonitor" {
		return nil
	}
	spec, err := descend(object, []string{"spec"})
	if err != nil {
		return err
	}
	endpoints, _ := spec["endpoints"].([]any)
	if len(endpoints) != 1 {
		return errors.New("the ServiceMonitor must have exactly one endpoint")
	}
	endpoints[0].(map[string]any)["interval"] = guarded{
		".Values.prometheus.interval", inline("{{ .Values.prometheus.interval }}"),
	}
	return nil
}
