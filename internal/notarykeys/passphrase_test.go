package notarykeys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// typist is a terminal on which lines are typed.
type typist struct {
	lines   []string
	prompts []string
	given   [][]byte
}

func (p *typist) ReadPassword(_ context.Context, prompt string) ([]byte, error) {
	p.prompts = append(p.prompts, prompt)
	if len(p.lines) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	line := []byte(p.lines[0])
	p.lines, p.given = p.lines[1:], append(p.given, line)
	return line, nil
}

// wantWiped checks that what was typed was overwritten.
func (p *typist) wantWiped(t *testing.T) {
	t.Helper()
	for _, line := range p.given {
		if bytes.ContainsFunc(line, func(r rune) bool { return r != 0 }) {
			t.Errorf("got %q in memory, want it overwritten", line)
		}
	}
}

// Each role has its variables: those of Docker, and those of the notary client.
func TestVariables(t *testing.T) {
	for role, names := range map[string][]string{
		RoleRoot:      {"DOCKER_CONTENT_TRUST_ROOT_PASSPHRASE", "NOTARY_ROOT_PASSPHRASE"},
		RoleTargets:   {"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_TARGETS_PASSPHRASE"},
		RoleSnapshot:  {"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_SNAPSHOT_PASSPHRASE"},
		"ci":          {"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_DELEGATION_PASSPHRASE"},
		"targets/ci":  {"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_DELEGATION_PASSPHRASE"},
		DefaultName:   {"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_DELEGATION_PASSPHRASE"},
		RoleTimestamp: {"DOCKER_CONTENT_TRUST_REPOSITORY_PASSPHRASE", "NOTARY_DELEGATION_PASSPHRASE"},
	} {
		for _, name := range names {
			t.Run(role+" "+name, func(t *testing.T) {
				s := newStore(t)
				s.Passphrases.Getenv = environment(map[string]string{name: passphrase})
				k := generate(t, s, role, gun)
				wantSigner(t, s, k.ID)

				// A second variable with another value does not hide the right one.
				both := map[string]string{names[0]: "another passphrase", names[1]: "another passphrase"}
				both[name] = passphrase
				s.Passphrases.Getenv = environment(both)
				wantSigner(t, s, k.ID)
				_, err := s.Generate(t.Context(), role, gun)
				oneLine(t, err, names[0]+" and "+names[1]+" differ", "unset one")

				s.Passphrases.Getenv = environment(map[string]string{name: "another passphrase"})
				_, err = s.Unlock(t.Context(), k.ID)
				oneLine(t, err, "the passphrase is wrong", name, k.ID[:7])
				if !errors.Is(err, ErrPassphrase) {
					t.Errorf("got %v, want ErrPassphrase", err)
				}

				s.Passphrases.Getenv = environment(nil)
				_, err = s.Unlock(t.Context(), k.ID)
				oneLine(t, err, "there is no terminal", names[0], names[1])
				_, err = s.Generate(t.Context(), role, gun)
				oneLine(t, err, "there is no terminal", names[0], names[1])

				s.Passphrases.Getenv = environment(map[string]string{name: "1234567"})
				_, err = s.Generate(t.Context(), role, gun)
				oneLine(t, err, name+" is too short", "8 characters")
				if keys, _ := s.List(); len(keys) != 1 {
					t.Errorf("got %v in the store after errors, want one key", keys)
				}
			})
		}
	}
}

// Without a variable the passphrase is typed: twice for a new key, which is told apart.
func TestTyped(t *testing.T) {
	s := newStore(t)
	in := &typist{lines: []string{passphrase, "  " + passphrase + "\n"}}
	s.Passphrases = &Passphrases{Getenv: environment(nil), Terminal: in}
	k := generate(t, s, RoleRoot, "")
	in.wantWiped(t)
	id := k.ID[:7]

	in.lines = []string{"wrong", passphrase}
	wantSigner(t, s, k.ID)
	in.wantWiped(t)
	want := []string{
		fmt.Sprintf("Passphrase of the new root key %s: ", id),
		fmt.Sprintf("Again, the passphrase of the new root key %s: ", id),
		fmt.Sprintf("Passphrase of the root key %s: ", id),
		fmt.Sprintf("The passphrase is wrong. Passphrase of the root key %s: ", id),
	}
	if diff := cmp.Diff(want, in.prompts); diff != "" {
		t.Errorf("prompts: want -, got +\n%s", diff)
	}

	in.lines = []string{"wrong", "wrong", "wrong", passphrase}
	_, err := s.Unlock(t.Context(), k.ID)
	oneLine(t, err, "the passphrase is wrong", "3 attempts")
	in.wantWiped(t)

	in.lines = []string{passphrase, "another passphrase", "short", passphrase, passphrase}
	ci := generate(t, s, "ci", "")
	in.wantWiped(t)
	in.lines = []string{passphrase}
	wantSigner(t, s, ci.ID)

	in.lines, in.prompts = []string{"short", "short", "short"}, nil
	_, err = s.Generate(t.Context(), RoleTargets, gun)
	oneLine(t, err, "no passphrase for the new targets key", gun, "at least 8 characters")
	in.lines = nil
	_, err = s.Generate(t.Context(), "ci", "")
	oneLine(t, err, "reading the passphrase", io.ErrUnexpectedEOF.Error())
	if keys, _ := s.List(); len(keys) != 2 {
		t.Errorf("got %v in the store after errors, want two keys", keys)
	}
}

// Where a variable has the passphrase of other keys, that of this key can be typed.
func TestTypedAfterWrongVariable(t *testing.T) {
	s := newStore(t)
	k := generate(t, s, "ci", "")
	in := &typist{lines: []string{passphrase}}
	s.Passphrases = &Passphrases{
		Getenv:   environment(map[string]string{Variables("ci")[0]: "that of the targets key"}),
		Terminal: in,
	}
	wantSigner(t, s, k.ID)
	if len(in.prompts) != 1 || !strings.Contains(in.prompts[0], "(ci)") {
		t.Errorf("got prompts %q, want one for the key of ci", in.prompts)
	}
}
