package main

import (
	"fmt"
	"strings"
)

const (
	maxColumns = 100 // of a line that abridged prints whole
	maxBlock   = 3   // lines of a text in YAML that abridged prints whole
)

// abridged returns YAML for the reader: it leaves out the inner lines of certificates, keys and
// other long texts, and the ends of long lines.
func abridged(manifest string) string {
	var out []string
	lines := strings.Split(strings.TrimSpace(manifest), "\n")
	for i := 0; i < len(lines); i++ {
		out = append(out, shortened(lines[i]))
		if !strings.HasSuffix(lines[i], "|") && !strings.HasSuffix(lines[i], "|-") {
			continue
		}
		end := i + 1
		for end < len(lines) && indentation(lines[end]) > indentation(lines[i]) {
			end++
		}
		block := lines[i+1 : end]
		i = end - 1
		if len(block) <= maxBlock {
			for _, line := range block {
				out = append(out, shortened(line))
			}
			continue
		}
		left := fmt.Sprintf("%s... (%d more lines)", strings.Repeat(" ", indentation(block[0])), len(block)-1)
		out = append(out, shortened(block[0]), left)
	}
	return strings.Join(out, "\n")
}

// indentation counts the spaces at the start of a line; an item of a list is indented by its dash.
func indentation(line string) int { return len(line) - len(strings.TrimLeft(line, " ")) }

func shortened(line string) string {
	if len(line) <= maxColumns {
		return line
	}
	return line[:maxColumns-len("...")] + "..."
}
