// Command bench reads the output of "go test -bench" and prints a table of the promised bounds and
// the measured figures. It marks a missed bound but does not fail, because the machine may be slow
// or busy. It fails if a figure is absent.
//
// The input has the format that benchstat reads: each line has a benchmark's name, its iterations,
// and pairs of a value and its unit. Several lines of one benchmark give their median.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("want one argument: the file with the output of go test -bench")
	}
	file, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer file.Close()
	measured, err := read(file)
	if err != nil {
		return err
	}
	return table(out, figures(), measured)
}

// measurement names one unit of one benchmark.
type measurement struct{ benchmark, unit string }

// processors matches the end of a benchmark's name, which is the number of processors.
var processors = regexp.MustCompile(`-\d+$`)

// read returns the values of each measurement. It ignores all other lines.
func read(in io.Reader) (map[measurement][]float64, error) {
	measured := map[measurement][]float64{}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || len(fields)%2 != 0 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue
		}
		name := processors.ReplaceAllString(strings.TrimPrefix(fields[0], "Benchmark"), "")
		for i := 2; i < len(fields); i += 2 {
			value, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%s: %q is not a number", fields[0], fields[i])
			}
			m := measurement{name, fields[i+1]}
			measured[m] = append(measured[m], value)
		}
	}
	return measured, lines.Err()
}

// table writes the table. The error names the figures that are absent.
func table(out io.Writer, all []figure, measured map[measurement][]float64) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FIGURE\tBOUND\tMEASURED\t\tCOMMAND")
	var absent []string
	for _, f := range all {
		values := measured[measurement{f.benchmark, f.unit}]
		if len(values) == 0 {
			absent = append(absent, f.name)
			fmt.Fprintf(w, "%s\t%s\tabsent\t\t%s\n", f.name, f.bound(), f.command())
			continue
		}
		value := median(values) * f.scale()
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.name, f.bound(), f.text(value), f.verdict(value), f.command())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(absent) > 0 {
		return fmt.Errorf("not measured: %s", strings.Join(absent, "; "))
	}
	return nil
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
