package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/countersign-dev/countersign/internal/notarykeys"
	"github.com/countersign-dev/countersign/internal/text"
)

// newTrustKey returns the commands of the key store.
func newTrustKey(o *trustOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "key",
		Short: "Make, load, export and list private keys",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newKeyGenerate(o), newKeyLoad(o), newKeyExport(o), newKeyList(o), newKeyRotate(o))
	return c
}

// keyResult is a key in the output.
type keyResult struct {
	ID        string `json:"id"`
	Role      string `json:"role,omitempty"`
	GUN       string `json:"gun,omitempty"`
	Encrypted bool   `json:"encrypted"`
	File      string `json:"file,omitempty"`
	Fault     string `json:"fault,omitempty"`
}

// keysResult is the output of the commands about keys.
type keysResult struct {
	TrustDir      string      `json:"trustDir"`
	DryRun        bool        `json:"dryRun,omitempty"`
	PublicKeyFile string      `json:"publicKeyFile,omitempty"`
	ExportedTo    string      `json:"exportedTo,omitempty"`
	Keys          []keyResult `json:"keys"`
}

func newKeyResult(k notarykeys.Key) keyResult {
	r := keyResult{ID: k.ID, Role: k.Role, GUN: k.GUN, Encrypted: k.Encrypted, File: k.File}
	if k.Fault != nil {
		r.Fault = k.Fault.Error()
	}
	return r
}

// newKeysResult returns the output about keys.
func newKeysResult(s *notarykeys.Store, keys ...notarykeys.Key) keysResult {
	r := keysResult{TrustDir: s.Dir, Keys: []keyResult{}}
	for _, k := range keys {
		r.Keys = append(r.Keys, newKeyResult(k))
	}
	return r
}

// print writes a result: a text, or what -o names.
func (o *trustOptions) print(out *output, result any, text string) error {
	if out.format != "text" {
		return out.encode(o.Out, result)
	}
	_, err := io.WriteString(o.Out, text)
	return err
}

// keyGenerate is the command "trust key generate".
type keyGenerate struct {
	*trustOptions

	out    *output
	dir    string
	dryRun bool
}

func newKeyGenerate(o *trustOptions) *cobra.Command {
	g := keyGenerate{trustOptions: o}
	c := &cobra.Command{
		Use:   "generate NAME",
		Short: "Make a signer's key pair: the private key in the store, the public key in NAME.pub",
		Long: `Make a signer's key pair (ECDSA P-256).

The private key goes to the trust directory, encrypted. The public key goes to NAME.pub in the
current folder, for the owner of a repository to add as a signer. The name root makes a root key,
which new repositories will use.`,
		Example: "  kubectl countersign trust key generate ci",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return g.run(c.Context(), args[0]) },
	}
	c.Flags().StringVar(&g.dir, "dir", "", "folder of the public key (default: the current folder)")
	_ = c.MarkFlagDirname("dir")
	c.Flags().BoolVar(&g.dryRun, "dry-run", false, "check everything, and make nothing")
	g.out = addOutput(c)
	return c
}

func (g *keyGenerate) run(ctx context.Context, name string) error {
	if err := notarykeys.CheckName(name); err != nil {
		return err
	}
	s, err := g.keys()
	if err != nil {
		return err
	}
	if _, err := s.List(); err != nil {
		return err
	}
	public := filepath.Join(g.dir, name+".pub")
	if err := free(public, "move it away first"); err != nil {
		return err
	}
	result := newKeysResult(s)
	result.PublicKeyFile, result.DryRun = public, g.dryRun
	if g.dryRun {
		return g.print(g.out, result, fmt.Sprintf("Would make a key for %s in %s, and write its public key to %s\n",
			name, s.Dir, public))
	}
	key, err := generateKey(ctx, s, name, public)
	if err != nil {
		return err
	}
	result.Keys = []keyResult{newKeyResult(key)}
	g.adviseBackup(key)
	return g.print(g.out, result, fmt.Sprintf("Made key %s for %s: private key %s, public key %s\n", key.ID, name,
		key.File, public))
}

// generateKey makes a key pair. It leaves neither half if it cannot write both.
func generateKey(ctx context.Context, s *notarykeys.Store, name, public string) (notarykeys.Key, error) {
	signer, err := s.Generate(ctx, name, "")
	if err != nil {
		return notarykeys.Key{}, err
	}
	defer signer.Close()
	text, err := signer.PublicPEM()
	if err == nil {
		err = notarykeys.WriteFile(public, text, false)
	}
	if err != nil {
		if undo := s.Remove(signer.ID); undo != nil {
			err = fmt.Errorf("%w; %w", err, undo)
		}
		return notarykeys.Key{}, err
	}
	return signer.Key, nil
}

// free returns an error if a file exists, with advice, or if its folder does not.
func free(name, advice string) error {
	if _, err := os.Stat(filepath.Dir(name)); err != nil {
		return fmt.Errorf("there is no folder %s; make it first", filepath.Dir(name))
	}
	_, err := os.Lstat(name)
	switch {
	case err == nil:
		return fmt.Errorf("%s exists already; %s", name, advice)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	}
	return err
}

// adviseBackup says that a new root key needs a backup. Only the root key can give a repository new
// keys, and nobody can make it anew.
func (o *trustOptions) adviseBackup(keys ...notarykeys.Key) {
	for _, k := range keys {
		if k.Role == notarykeys.RoleRoot {
			fmt.Fprintf(o.ErrOut, "Back up the root key now, offline: 'trust key export %s'. "+
				"Without it and its passphrase, no other key of its repositories can ever be replaced.\n", k.ID)
		}
	}
}

// keyLoad is the command "trust key load".
type keyLoad struct {
	*trustOptions

	out     *output
	options notarykeys.ImportOptions
}

func newKeyLoad(o *trustOptions) *cobra.Command {
	l := keyLoad{trustOptions: o}
	c := &cobra.Command{
		Use:   "load FILE",
		Short: "Add private keys of a file to the store",
		Long: `Add the private keys of a PEM file to the trust directory, encrypted.

The file has one key, or several as "trust key export" and the notary client export them. It may
be in PKCS #8, PKCS #1 or SEC 1, encrypted or not. Only its owner may be able to read it.`,
		Example: "  kubectl countersign trust key load ci.pem --name ci",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return l.run(c.Context(), args[0]) },
	}
	c.Flags().StringVar(&l.options.Name, "name", "",
		fmt.Sprintf("name of the signer (default: as in the file, or %q)", notarykeys.DefaultName))
	c.Flags().BoolVar(&l.options.DryRun, "dry-run", false, "read the file, and add nothing")
	l.out = addOutput(c)
	return c
}

func (l *keyLoad) run(ctx context.Context, file string) error {
	if l.options.Name != "" {
		if err := notarykeys.CheckName(l.options.Name); err != nil {
			return err
		}
	}
	s, err := l.keys()
	if err != nil {
		return err
	}
	if _, err := s.List(); err != nil {
		return err
	}
	keys, err := s.Import(ctx, file, l.options)
	if err != nil {
		return err
	}
	result := newKeysResult(s, keys...)
	result.DryRun = l.options.DryRun
	verb := "Loaded"
	if l.options.DryRun {
		verb = "Would load"
	}
	var text strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&text, "%s key %s (%s): %s\n", verb, k.ID, cmp.Or(k.Role, "no role"), k.File)
	}
	return l.print(l.out, result, text.String())
}

// keyExport is the command "trust key export".
type keyExport struct {
	*trustOptions

	out           *output
	force, dryRun bool
}

func newKeyExport(o *trustOptions) *cobra.Command {
	x := keyExport{trustOptions: o}
	c := &cobra.Command{
		Use:   "export ID|NAME [FILE]",
		Short: "Copy a private key to a file, encrypted as it is",
		Long: `Copy a private key to a file that only its owner can read, for a backup or another machine.

The file is encrypted with the passphrase that the key has in the trust directory. "trust key
load" and the notary client read it. The key is named by its ID, the first 7 digits or more of
it, or its role. Without FILE, the name is made of the role and the ID.`,
		Example: "  kubectl countersign trust key export ci ci-backup.key",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			return x.run(args[0], strings.Join(args[1:], ""))
		},
	}
	c.Flags().BoolVar(&x.force, "force", false, "replace the file if it exists")
	c.Flags().BoolVar(&x.dryRun, "dry-run", false, "say what would be written, and write nothing")
	x.out = addOutput(c)
	return c
}

func (x *keyExport) run(name, file string) error {
	s, err := x.keys()
	if err != nil {
		return err
	}
	key, err := s.Lookup(name)
	if err != nil {
		return err
	}
	file = cmp.Or(file, exportName(key))
	if !x.force {
		if err := free(file, "give another file, or --force"); err != nil {
			return err
		}
	}
	result := newKeysResult(s, key)
	result.ExportedTo, result.DryRun = file, x.dryRun
	if x.dryRun {
		return x.print(x.out, result, fmt.Sprintf("Would export key %s to %s\n", key.ID, file))
	}
	text, err := s.Export(key.ID)
	if err != nil {
		return err
	}
	defer clear(text)
	if err := notarykeys.WriteFile(file, text, x.force); err != nil {
		return err
	}
	if !key.Encrypted {
		fmt.Fprintf(x.ErrOut, "The key has no passphrase: whoever reads %s can sign with it.\n", file)
	}
	return x.print(x.out, result, fmt.Sprintf("Exported key %s to %s\n", key.ID, file))
}

// exportName returns the name of the file of an exported key: "ci-1234567.key".
func exportName(k notarykeys.Key) string {
	role := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789_", r) {
			return r
		}
		return '-'
	}, strings.ToLower(cmp.Or(k.Role, "key")))
	return strings.TrimLeft(role, "-") + "-" + k.ID[:7] + ".key"
}

func newKeyList(o *trustOptions) *cobra.Command {
	var out *output
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the private keys of the store",
		Example: "  kubectl countersign trust key list",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return o.listKeys(out) },
	}
	out = addOutput(c)
	return c
}

func (o *trustOptions) listKeys(out *output) error {
	s, err := o.keys()
	if err != nil {
		return err
	}
	keys, err := s.List()
	if err != nil {
		return err
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 3, ' ', 0)
	if len(keys) > 0 {
		fmt.Fprintln(w, "ROLE\tKEY ID\tREPOSITORY")
	} else {
		fmt.Fprintf(o.ErrOut, "No keys in %s\n", s.Dir)
	}
	for _, k := range keys {
		if k.Fault != nil {
			o.warn("%v", k.Fault)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", text.Line(cmp.Or(k.Role, "-")), text.Line(k.ID), text.Line(k.GUN))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return o.print(out, newKeysResult(s, keys...), table.String())
}
