package flags

import (
	"cmp"
	"fmt"
	"runtime/debug"
	"strings"
)

// Version describes the build of this program: its version, the commit and the version of Go. The
// version is the stamped one, otherwise the tag of the build, otherwise "devel".
func Version(stamped string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return describe(stamped, info)
}

func describe(stamped string, info *debug.BuildInfo) string {
	var commit, dirty string
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " with changes"
		}
	}
	version := cmp.Or(stamped, strings.Trim(strings.TrimSuffix(info.Main.Version, "+dirty"), "()"), "devel")
	if commit == "" {
		return fmt.Sprintf("%s (%s)", version, info.GoVersion)
	}
	return fmt.Sprintf("%s (commit %s%s, %s)", version, commit, dirty, info.GoVersion)
}
