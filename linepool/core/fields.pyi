from linepool.core.plain import ConnectionFields as ConnectionFields
from linepool.core.plain import FigureFields as FigureFields
from linepool.core.plain import InterruptFields as InterruptFields
from linepool.core.plain import SafePointFields as SafePointFields
from linepool.core.plain import TableFields as TableFields
