package options

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// Version describes the build of this program: its version, which is that of the tag it was built from, the commit and the version of Go. What
// was built outside of a checkout has the version "(devel)".
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return describe(info)
}

func describe(info *debug.BuildInfo) string {
	var commit, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " with changes"
		}
	}
	version := strings.TrimSuffix(info.Main.Version, "+dirty")
	if version == "" {
		version = "(devel)"
	}
	if commit == "" {
		return fmt.Sprintf("%s (%s)", version, info.GoVersion)
	}
	return fmt.Sprintf("%s (commit %s%s, %s)", version, commit, dirty, info.GoVersion)
}
