package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// output is the value of -o.
type output struct {
	format  string
	formats []string
}

// addOutput adds -o to a command: text (the default), json, yaml, and further formats.
func addOutput(c *cobra.Command, further ...string) *output {
	o := &output{format: "text", formats: append([]string{"text", "json", "yaml"}, further...)}
	c.Flags().VarP(o, "output", "o", "format of the output: "+strings.Join(o.formats, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.formats, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// String implements pflag.Value.
func (o *output) String() string { return o.format }

// Type implements pflag.Value.
func (*output) Type() string { return "format" }

// Set implements pflag.Value.
func (o *output) Set(value string) error {
	if !slices.Contains(o.formats, value) {
		return fmt.Errorf("must be one of %s", strings.Join(o.formats, ", "))
	}
	o.format = value
	return nil
}

// encode writes a result as JSON or YAML. It must not be called for text.
func (o *output) encode(w io.Writer, result any) error {
	if o.format == "yaml" {
		b, err := yaml.Marshal(result)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(result)
}
