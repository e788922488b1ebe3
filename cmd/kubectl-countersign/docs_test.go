package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// commandLine matches one use of the command in a page or a pipeline.
var commandLine = regexp.MustCompile("(?:kubectl countersign|kubectl-countersign) ([a-z][^`|>#\n']*)")

// Each command line in the documents and the example pipelines names a command and flags that
// exist.
func TestCommandLinesInDocuments(t *testing.T) {
	root := filepath.Join("..", "..")
	n := 0
	for _, pattern := range []string{"README.md", "docs/*.md", "docs/spec/*.md", "examples/pipelines/*"} {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: got %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, found := range commandLine.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\\\n", " "), -1) {
				if strings.HasPrefix(found[1], "kubectl_") {
					continue // the other file of an archive, in a line of tar
				}
				n++
				if err := parses(found[1]); err != nil {
					t.Errorf("%s: kubectl countersign %s: %v", filepath.Base(file), found[1], err)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("got %d command lines, want at least 20", n)
	}
}

// parses reports why a command line cannot be parsed.
func parses(line string) error {
	root := newRoot(&environment{
		IOStreams: genericiooptions.NewTestIOStreamsDiscard(), cluster: genericclioptions.NewConfigFlags(true),
	})
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	var args []string
	for _, arg := range strings.Fields(strings.NewReplacer(`"`, "", "...", "", "&&", " ; ").Replace(line)) {
		if arg == ";" || arg == "<<<" {
			break
		}
		if arg != "--" {
			args = append(args, arg)
		}
	}
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if c == root && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return cobra.NoArgs(c, rest)
	}
	return c.ParseFlags(rest)
}

// Each example in the help of a command names a command and flags that exist.
func TestExamplesOfTheHelp(t *testing.T) {
	root := newRoot(&environment{
		IOStreams: genericiooptions.NewTestIOStreamsDiscard(), cluster: genericclioptions.NewConfigFlags(true),
	})
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			visit(sub)
		}
		if c.Runnable() && !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s: got no example, want one", c.CommandPath())
		}
		for _, found := range commandLine.FindAllStringSubmatch(c.Example, -1) {
			if err := parses(found[1]); err != nil {
				t.Errorf("%s: kubectl countersign %s: %v", c.CommandPath(), found[1], err)
			}
		}
	}
	visit(root)
}
