package flags

import (
	"bytes"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestLogger(t *testing.T) {
	for level, want := range map[string][]string{
		"":      {"Informed", "Failed"},
		"debug": {"Debugged", "Informed", "Failed"},
		"info":  {"Informed", "Failed"},
		"error": {"Failed"},
	} {
		for format, read := range map[string]func(*testing.T, string) string{
			"": readJSON, "json": readJSON, "text": readText,
		} {
			t.Run(level+" "+format, func(t *testing.T) {
				var args []string
				if level != "" {
					args = append(args, "--log-level="+level)
				}
				if format != "" {
					t.Setenv("COUNTERSIGN_LOG_FORMAT", format)
				}
				o, err := Parse(args)
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				log := o.Logger(&out).WithName("part")
				log.V(1).Info("Debugged", "image", "acme/app")
				log.Info("Informed", "image", "acme/app")
				log.Error(errors.New("odd"), "Failed", "image", "acme/app")
				var got []string
				for line := range strings.Lines(out.String()) {
					if message := read(t, line); message != "" {
						got = append(got, message)
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %q, want %q, of\n%s", got, want, &out)
				}
			})
		}
	}
}

func readJSON(t *testing.T, line string) string {
	var entry struct{ Level, TS, Logger, Msg, Image string }
	if err := json.Unmarshal([]byte(line), &entry); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if entry.Level == "" || entry.TS == "" || entry.Logger != "part" || entry.Image != "acme/app" {
		t.Errorf("%q says %+v", line, entry)
	}
	return entry.Msg
}

// readText returns the message of a line, or nothing for a line of a stack trace.
func readText(t *testing.T, line string) string {
	m := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\S+\t(?:DEBUG|INFO|ERROR)\tpart\t(\w+)\t(\{.*\})\n$`).FindStringSubmatch(
		line)
	if m == nil {
		if strings.HasPrefix(line, "20") || strings.HasPrefix(line, "{") {
			t.Errorf("not a line of text: %q", line)
		}
		return ""
	}
	if !json.Valid([]byte(m[2])) || !strings.Contains(m[2], `"image": "acme/app"`) {
		t.Errorf("%q", line)
	}
	return m[1]
}

// One error names every bad flag of the log, also from the environment.
func TestLoggerRefuses(t *testing.T) {
	t.Setenv("COUNTERSIGN_LOG_FORMAT", "JSON")
	_, err := Parse([]string{"--log-level=trace"})
	for _, want := range []string{
		"--log-level=trace: must be debug, info or error", "--log-format=JSON: must be json or text",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
