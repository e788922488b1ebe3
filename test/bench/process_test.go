package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clockTick is the unit of times in /proc/<pid>/stat. It is the same on every Linux.
const clockTick = 10 * time.Millisecond

// procStat returns the sum of fields of /proc/<pid>/stat, numbered from 1 as in proc(5).
func procStat(b *testing.B, pid int, fields ...int) (ticks time.Duration) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	check(b, err)
	_, rest, _ := strings.Cut(string(text), ") ") // after the name, which may contain spaces
	all := strings.Fields(rest)
	for _, field := range fields {
		n, err := strconv.Atoi(all[field-3])
		check(b, err)
		ticks += time.Duration(n) * clockTick
	}
	return ticks
}

// usedTime returns the processor time that a process has used.
func usedTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	return procStat(b, pid, 14, 15)
}

// age returns the time since the start of a process.
func age(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile("/proc/uptime")
	check(b, err)
	uptime, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	check(b, err)
	return time.Duration(uptime*float64(time.Second)) - procStat(b, pid, 22)
}
