# The sums server on Net::Server::PreFork: prefork_lines.pl PORT PROCESSES
use strict;
use warnings;

package Sums;
use parent 'Net::Server::PreFork';

my ($port, $processes) = @ARGV;

sub pre_loop_hook { print STDERR "ready\n" }

sub process_request {
    while (my $line = <STDIN>) {
        if ($line =~ /^ADD (-?\d+) (-?\d+)\r?\n/) {
            print $1 + $2, "\n";
        } else {
            print "ERROR unknown command\n";
        }
    }
}

Sums->run(
    host              => '127.0.0.1',
    port              => $port,
    ipv               => 4,
    listen            => 1024,
    min_servers       => $processes,
    max_servers       => $processes + 1,    # it insists on more than max_spare_servers
    min_spare_servers => 0,                 # so that it stays at min_servers
    max_spare_servers => $processes,
    log_level         => 1,
);
