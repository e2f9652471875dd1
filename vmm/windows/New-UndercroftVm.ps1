<#
.SYNOPSIS
Makes a virtual machine of Windows' Hyper-V from a disk image of Undercroft, with further disks, and shows its serial console.

.DESCRIPTION
UNTESTED: nobody has run this on a real host yet. Needs the Hyper-V module and an elevated shell.
Generation 2 boots by UEFI and has its disks on a SCSI controller; generation 1 boots by BIOS from an IDE disk, which the image also reaches
by the IDE disk's own storage channel.

.EXAMPLE
.\New-UndercroftVm.ps1 -Image .\undercroft.vhdx -Generation 2 -Disk .\data.vhdx
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $Image,
    [ValidateSet(1, 2)] [int] $Generation = 2,
    [string[]] $Disk = @(),
    [string] $Name = 'undercroft',
    [ValidateRange(1, 64)] [int] $Cpus = 2,
    [ValidateRange(64, 65536)] [int] $MemoryMiB = 256
)
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

if (Get-VM -Name $Name -ErrorAction SilentlyContinue) {
    throw "There is a machine named '$Name' already: choose another -Name, or remove it with Remove-VM."
}
$path = (Resolve-Path -LiteralPath $Image).Path
$vm = New-VM -Name $Name -Generation $Generation -MemoryStartupBytes ($MemoryMiB * 1MB) -VHDPath $path
Set-VM -VM $vm -ProcessorCount $Cpus -StaticMemory -AutomaticCheckpointsEnabled $false -CheckpointType Disabled
if ($Generation -eq 2) {
    # The image's loader is not signed.
    Set-VMFirmware -VM $vm -EnableSecureBoot Off
}
elseif (-not (Get-VMScsiController -VM $vm)) {
    Add-VMScsiController -VM $vm
}
foreach ($file in $Disk) {
    Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -Path (Resolve-Path -LiteralPath $file).Path
}
$pipe = "\\.\pipe\$Name"
Set-VMComPort -VM $vm -Number 1 -Path $pipe
Start-VM -VM $vm

$client = [System.IO.Pipes.NamedPipeClientStream]::new('.', $Name, [System.IO.Pipes.PipeDirection]::InOut)
try {
    $client.Connect(30000)
    $reader = [System.IO.StreamReader]::new($client)
    while ($null -ne ($line = $reader.ReadLine())) {
        Write-Output $line
    }
}
finally {
    $client.Dispose()
}
