package main

import "github.com/google/ko/pkg/build"

// module is the module of both programs.
const module = "github.com/countersign-dev/countersign"

// The names of the programs.
const (
	managerName = "countersign"
	commandName = "kubectl-countersign"
)

// program is a program of a release.
type program struct {
	name        string
	folder      string // below the folder of go.mod, as the go command reads it
	description string
}

// manager is the operator.
func manager() program {
	return program{
		name: managerName, folder: ".", description: "Runs only images that every signer role of a policy signed",
	}
}

// command is the command line.
func command() program {
	return program{
		name: commandName, folder: "./cmd/kubectl-countersign",
		description: "Says which images the policies admit, who signed them, and signs them",
	}
}

// importPath returns the import path as the image builder reads it.
func (p program) importPath() string {
	if p.folder == "." {
		return build.StrictScheme + module
	}
	return build.StrictScheme + module + p.folder[1:]
}

// linkerFlags returns the linker's flags. An empty version leaves that from git.
func linkerFlags(version string) []string {
	flags := []string{"-s", "-w"}
	if version != "" {
		flags = append(flags, "-X", "main.version="+version)
	}
	return flags
}
