package main

import (
	"errors"
	"fmt"
	"slices"
)

// setPorts has the manager listen where the ports of the container are.
func setPorts(args []any, defaults map[string]any) ([]any, error) {
	const metrics = "--metrics-bind-address=:"
	i := slices.Index(args, any(fmt.Sprintf("%s%v", metrics, defaults["ports.metrics"])))
	if i < 0 {
		return nil, errors.New("config/ does not have the manager serve metrics on the port that it names for that")
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

// setNetwork lets values take the place of what the component host-network changes.
func setNetwork(objects map[string]any) error {
	spec, err := descend(objects[deployment], podSpec())
	if err != nil {
		return err
	}
	dns, ok := spec["dnsPolicy"].(guarded)
	if !ok {
		return errors.New("dnsPolicy is not what the component host-network alone sets")
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

// setPeers has the value say from where the NetworkPolicy lets in.
func setPeers(policy any) error {
	spec, err := descend(policy, []string{"spec"})
	if err != nil {
		return err
	}
	rules, _ := spec["ingress"].([]any)
	if len(rules) != 1 {
		return errors.New("the NetworkPolicy has not one rule")
	}
	rules[0].(map[string]any)["from"] = guarded{
		".Values.networkPolicy.ingressFrom", block("toYaml .Values.networkPolicy.ingressFrom"),
	}
	return nil
}

// setMonitoring has the values of prometheus reach what the Prometheus operator reads.
func setMonitoring(kind string, object map[string]any) error {
	metadata, err := descend(object, []string{"metadata"})
	if err != nil {
		return err
	}
	if _, ok := metadata["annotations"]; ok {
		return errors.New("config/ has annotations there")
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
		return errors.New("the ServiceMonitor has not one endpoint")
	}
	endpoints[0].(map[string]any)["interval"] = guarded{
		".Values.prometheus.interval", inline("{{ .Values.prometheus.interval }}"),
	}
	return nil
}
