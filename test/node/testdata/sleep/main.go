// Command sleep is the program in the images of the test: it waits for a signal to end. It is also
// the pause container of Pods.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
