package main

import (
	"fmt"
	"regexp"
	"strings"
)

// release is the release of the operator that the chart installs.
type release struct {
	version                 string // without a leading v
	repository, tag, digest string // of the image
}

// newRelease parses a version, with or without a leading v, and the reference of an image.
func newRelease(version, image string) (release, error) {
	r := release{version: strings.TrimPrefix(version, "v")}
	if !regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`).MatchString(r.version) {
		return release{}, fmt.Errorf(
			"version %q: give it as 0.1.0, and the image as REPOSITORY@sha256:DIGEST: make chart VERSION=0.1.0 "+
				"IMAGE=REFERENCE", version)
	}
	if image == "" {
		r.repository, r.tag = chartName, r.appVersion()
		return r, nil
	}
	m := regexp.MustCompile(`^([^@]+?)(?::([\w][\w.-]*))?(?:@(sha256:[0-9a-f]{64}))?$`).FindStringSubmatch(image)
	if m == nil || m[2] == "" && m[3] == "" {
		return release{}, fmt.Errorf("image %q: give it as REPOSITORY:TAG, REPOSITORY@sha256:DIGEST, or with both",
			image)
	}
	r.repository, r.tag, r.digest = m[1], m[2], m[3]
	return r, nil
}

// appVersion returns the version with a leading v, as in tags and in the output of --version.
func (r release) appVersion() string { return "v" + r.version }
