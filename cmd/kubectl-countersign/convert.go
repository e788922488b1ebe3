package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/convert"
)

// conversion are the flags of convert.
type conversion struct {
	files       []string
	from        string
	registriesD string
	signers     []string
	namespace   string
	operator    string
	strict      bool
	output      *output
}

// newConvert returns the command that converts the policies of other products.
func newConvert(e *environment) *cobra.Command {
	f := &conversion{output: &output{format: "yaml", formats: []string{"yaml", "json"}}}
	c := &cobra.Command{
		Use:   "convert -f FILE...",
		Short: "Convert the policies of other products to ImagePolicies and TrustRoots",
		Long: `Convert the policies of other products to ImagePolicies and TrustRoots.

Reads Helm values of Connaisseur, policies of Portieris, of the policy-controller of Sigstore and of
OpenShift, and policy.json of containers. The objects go to stdout. Each field that is narrowed or
not carried over gives a line on stderr, with its file and line number. What cannot be carried over
denies: the result never admits an image that the source denied. No cluster is needed.

Exit codes: 0 converted, 1 with --strict if something was narrowed or not carried over, 3 bad input.`,
		Example: `  # Helm values of Connaisseur
  helm get values connaisseur -n connaisseur | kubectl countersign convert -f - > countersign.yaml

  # Policies of Portieris, with the Secrets of their signers
  kubectl countersign convert -f policies.yaml -f secrets.yaml --signers ci,qa

  # policy.json of a node
  kubectl countersign convert -f policy.json --registries-d /etc/containers/registries.d`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return f.run(e) },
	}
	flags := c.Flags()
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "file to convert, or - for stdin; may be given several times")
	flags.StringVar(&f.from, "from", "",
		"product of the files: "+strings.Join(sources(), ", ")+"; by default, their content says it")
	flags.StringVar(&f.registriesD, "registries-d", "", "folder registries.d that belongs to a policy.json")
	flags.StringSliceVar(&f.signers, "signers", nil,
		"delegations of Notary, or targets, that may sign where the source accepts any signer")
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of policies that name none")
	flags.StringVar(&f.operator, "operator-namespace", "countersign-system",
		"namespace of the operator, for ConfigMaps")
	flags.BoolVar(&f.strict, "strict", false, "exit with 1 if something is narrowed or not carried over")
	flags.VarP(f.output, "output", "o", "format of the output: yaml, json")
	for name, values := range map[string][]string{"output": f.output.formats, "from": sources()} {
		_ = c.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

func sources() []string {
	var all []string
	for _, s := range convert.Sources() {
		all = append(all, string(s))
	}
	return all
}

func (f *conversion) run(e *environment) error {
	if len(f.files) == 0 {
		return errors.New("no file to convert: name one with -f, or - for stdin")
	}
	options := convert.Options{
		From: convert.Source(f.from), Namespace: f.operator, SourceNamespace: f.namespace, Signers: f.signers,
	}
	if f.from != "" && !strings.Contains(" "+strings.Join(sources(), " ")+" ", " "+f.from+" ") {
		return fmt.Errorf("--from must be one of %s", strings.Join(sources(), ", "))
	}
	var files []convert.File
	for _, name := range f.files {
		file, err := readFile(e.In, name)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	if f.registriesD != "" {
		var err error
		if options.RegistriesD, err = readRegistries(f.registriesD); err != nil {
			return err
		}
	}
	result, err := convert.Convert(files, options)
	if err != nil {
		return err
	}
	if err := result.Write(e.Out, f.output.format); err != nil {
		return err
	}
	for _, note := range result.Notes {
		_, _ = fmt.Fprintln(e.ErrOut, note)
	}
	if f.strict && !result.Complete() {
		return errDenied
	}
	return nil
}

// readFile reads a file, or stdin for "-". It reads no more than a conversion accepts.
func readFile(stdin io.Reader, name string) (convert.File, error) {
	if name == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, convert.MaxBytes+1))
		return convert.File{Name: "stdin", Data: data}, err
	}
	file, err := os.Open(filepath.Clean(name))
	if err != nil {
		return convert.File{}, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, convert.MaxBytes+1))
	if err != nil {
		return convert.File{}, fmt.Errorf("reading %s: %w", name, err)
	}
	return convert.File{Name: name, Data: data}, nil
}

// readRegistries reads the files of registries.d: those that end in .yaml.
func readRegistries(folder string) ([]convert.File, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	files := []convert.File{} // not nil: the folder is known, also if it is empty
	for _, entry := range entries {
		if entry.IsDir() || filepath.Ext(entry.Name()) != ".yaml" {
			continue
		}
		file, err := readFile(nil, filepath.Join(folder, entry.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}
