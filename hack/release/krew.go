package main

import (
	"encoding/hex"
	"fmt"
)

// releases is where the files of a release are.
const releases = "https://github.com/countersign-dev/countersign/releases/download"

// krewPlugin is a manifest of krew, apiVersion krew.googlecontainertools.github.com/v1alpha2.
type krewPlugin struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   map[string]string `json:"metadata"`
	Spec       krewSpec          `json:"spec"`
}

type krewSpec struct {
	Version          string         `json:"version"`
	Homepage         string         `json:"homepage"`
	ShortDescription string         `json:"shortDescription"`
	Description      string         `json:"description"`
	Platforms        []krewPlatform `json:"platforms"`
}

type krewPlatform struct {
	Selector struct {
		MatchLabels map[string]string `json:"matchLabels"`
	} `json:"selector"`
	URI    string     `json:"uri"`
	SHA256 string     `json:"sha256"`
	Bin    string     `json:"bin"`
	Files  []krewFile `json:"files"`
}

type krewFile struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// krewManifest returns the manifest for the archives. Without a version it names v0.0.0.
func krewManifest(version string, all []archived) krewPlugin {
	if version == "" {
		version = "v0.0.0"
	}
	plugin := krewPlugin{
		APIVersion: "krew.googlecontainertools.github.com/v1alpha2", Kind: "Plugin",
		Metadata: map[string]string{"name": "countersign"},
		Spec: krewSpec{
			Version: version, Homepage: "https://" + module, ShortDescription: "Verify and sign images by role",
			Description: "Says what the ImagePolicies of Countersign decide about images and manifests, with or\n" +
				"without a cluster, and who has signed them. Signs with Docker Content Trust.\n",
		},
	}
	for _, a := range all {
		p := krewPlatform{
			URI: fmt.Sprintf("%s/%s/%s", releases, version, a.file), SHA256: hex.EncodeToString(a.sum[:]),
			Bin: commandName, Files: []krewFile{{commandName, "."}, {"licenses/" + module + "/LICENSE", "."}},
		}
		if a.os == "windows" {
			p.Bin += ".exe"
			p.Files[0].From = p.Bin
		}
		p.Selector.MatchLabels = map[string]string{"os": a.os, "arch": a.arch}
		plugin.Spec.Platforms = append(plugin.Spec.Platforms, p)
	}
	return plugin
}
