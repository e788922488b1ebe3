package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clockTick is the unit of times in /proc/<pid>/stat, which Linux fixes for programs.
const clockTick = 10 * time.Millisecond

// procStat returns fields of /proc/<pid>/stat, numbered from 1 as in proc(5).
func procStat(b *testing.B, pid int, fields ...int) (ticks time.Duration) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(b, err)
	_, rest, _ := strings.Cut(string(text), ") ") // behind the name, which may hold blanks
	all := strings.Fields(rest)
	for _, field := range fields {
		n, err := strconv.Atoi(all[field-3])
		check(b, err)
		ticks += time.Duration(n) * clockTick
	}
	return ticks
}

// usedTime is the time of processors that a process has used.
func usedTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	return procStat(b, pid, 14, 15)
}

// age is how long ago a process was started.
func age(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile("/proc/uptime")
	check(b, err)
	uptime, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	check(b, err)
	return time.Duration(uptime*float64(time.Second)) - procStat(b, pid, 22)
}
